// Which addresses of a subnet are in use.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/netlink/address.h"

namespace gantry::network {

// A bitmap of a subnet's addresses. The first (the network), the second (the gateway: the bridge)
// and the last (broadcast) are never given out. Addresses go round, so one just given back is the
// last to be taken again: what the world still remembers of it has time to fade. Nothing is kept on
// disk: the endpoints of the engine's records say what is in use. Thread-compatible.
class AddressPool {
 public:
  // Errors: InvalidArgument — the prefix is not between /12 and /29, or has bits below its length.
  static absl::StatusOr<AddressPool> Create(const netlink::Ipv4Prefix& subnet);

  // The next free one. Errors: ResourceExhausted, naming the subnet and its size.
  absl::StatusOr<netlink::Ipv4Address> TakeNext();

  // This one. Errors: InvalidArgument — not an address of this subnet that can be given out;
  // AlreadyExists — in use.
  absl::Status Take(netlink::Ipv4Address address);

  // Fine when it is free already.
  void Give(netlink::Ipv4Address address);

  const netlink::Ipv4Prefix& subnet() const { return subnet_; }
  netlink::Ipv4Address gateway() const { return {subnet_.first().value + 1}; }
  uint64_t capacity() const { return used_.size() - 3; }
  uint64_t used() const { return used_count_; }

 private:
  explicit AddressPool(const netlink::Ipv4Prefix& subnet);

  netlink::Ipv4Prefix subnet_;
  std::vector<bool> used_;  // By the offset from the subnet's first address.
  uint64_t used_count_ = 0;
  uint64_t next_ = 2;
};

}  // namespace gantry::network
