#include "services/engine/network/address_pool.h"

#include "absl/strings/str_cat.h"

namespace gantry::network {

absl::StatusOr<AddressPool> AddressPool::Create(const netlink::Ipv4Prefix& subnet) {
  if (subnet.length < 12 || subnet.length > 29) {
    return absl::InvalidArgumentError(
        absl::StrCat("subnet '", subnet.ToString(), "' cannot be used; choose from /12 to /29"));
  }
  if (subnet.address != subnet.first()) {
    return absl::InvalidArgumentError(
        absl::StrCat("subnet '", subnet.ToString(), "' has bits below its length; write '",
                     netlink::Ipv4Prefix{subnet.first(), subnet.length}.ToString(), "'"));
  }
  return AddressPool(subnet);
}

AddressPool::AddressPool(const netlink::Ipv4Prefix& subnet)
    : subnet_(subnet), used_(uint64_t{1} << (32 - subnet.length)) {}

absl::StatusOr<netlink::Ipv4Address> AddressPool::TakeNext() {
  for (uint64_t tried = 0; tried < capacity(); ++tried) {
    const uint64_t offset = next_;
    next_ = next_ + 2 < used_.size() ? next_ + 1 : 2;
    if (used_[offset]) continue;
    used_[offset] = true;
    ++used_count_;
    return netlink::Ipv4Address{static_cast<uint32_t>(subnet_.address.value + offset)};
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("all ", capacity(), " addresses of subnet '", subnet_.ToString(),
                   "' are in use; remove containers or set a larger [engine] network_subnet"));
}

absl::Status AddressPool::Take(netlink::Ipv4Address address) {
  if (!subnet_.Contains(address) || address == subnet_.first() || address == gateway() ||
      address == subnet_.last()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "address '", address.ToString(), "' cannot be given to a container; choose one of '",
        subnet_.ToString(), "' other than its first two and its last"));
  }
  const uint64_t offset = address.value - subnet_.address.value;
  if (used_[offset]) {
    return absl::AlreadyExistsError(absl::StrCat("address '", address.ToString(), "' is in use"));
  }
  used_[offset] = true;
  ++used_count_;
  return absl::OkStatus();
}

void AddressPool::Give(netlink::Ipv4Address address) {
  if (!subnet_.Contains(address)) return;
  const uint64_t offset = address.value - subnet_.address.value;
  if (!used_[offset]) return;
  used_[offset] = false;
  --used_count_;
}

}  // namespace gantry::network
