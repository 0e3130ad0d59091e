#include "services/engine/network/host_ports.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"

namespace gantry::network {
namespace {

// Docker's range for ports nobody asked for by number: above what the kernel gives to clients by
// default on other systems, and what people know from its output.
constexpr uint16_t kFirstFreePort = 49153;
constexpr uint16_t kLastFreePort = 65535;

// Ids are shown as people see them in `ps`.
std::string ShortId(const std::string& id) { return id.substr(0, 12); }

std::string Describe(Protocol protocol, netlink::Ipv4Address ip, uint16_t port) {
  return absl::StrCat("'", ip.ToString(), ":", port, "/", ProtocolName(protocol), "'");
}

absl::StatusOr<netlink::Ipv4Address> HostAddress(const std::string& host_ip) {
  if (host_ip.empty()) return netlink::Ipv4Address{};
  return netlink::ParseIpv4(host_ip);
}

}  // namespace

HostPorts::HostPorts(Bind bind) : bind_(std::move(bind)), next_free_(kFirstFreePort) {}

absl::StatusOr<std::vector<Port>> HostPorts::Reserve(const std::string& holder,
                                                     const std::vector<PortRequest>& requests) {
  std::vector<Port> ports;
  absl::Cleanup undo = [&] {
    for (const Port& port : ports) {
      Drop(holder, {port.protocol, port.host_port}, *netlink::ParseIpv4(port.host_ip));
    }
  };
  for (const PortRequest& request : requests) {
    ASSIGN_OR_RETURN(Port port, ReserveOne(holder, request));
    ports.push_back(std::move(port));
  }
  std::move(undo).Cancel();
  return ports;
}

absl::StatusOr<Port> HostPorts::ReserveOne(const std::string& holder, const PortRequest& request) {
  ASSIGN_OR_RETURN(netlink::Ipv4Address ip, HostAddress(request.host_ip));
  uint32_t first = request.host_port;
  uint32_t last = std::max(request.host_port, request.host_port_end);
  uint32_t start = first;
  if (request.host_port == 0) {
    first = kFirstFreePort;
    last = kLastFreePort;
    absl::MutexLock lock(&mutex_);
    start = next_free_;
    next_free_ = next_free_ == kLastFreePort ? kFirstFreePort : next_free_ + 1;
  }
  const uint32_t choices = last - first + 1;
  for (uint32_t i = 0; i < choices; ++i) {
    const auto candidate = static_cast<uint16_t>(first + (start - first + i) % choices);
    absl::Status taken = TryPort(holder, request, ip, candidate);
    if (taken.ok()) {
      return Port{request.protocol, request.container_port, ip.ToString(), candidate};
    }
    // Only "somebody has it" is a reason to look further, and only when there is a choice.
    if (choices == 1 || taken.code() != absl::StatusCode::kAlreadyExists) return taken;
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "publish container port ", request.container_port, "/", ProtocolName(request.protocol),
      ": none of the host ports ", first, "-", last, " is free"));
}

absl::Status HostPorts::TryPort(const std::string& holder, const PortRequest& request,
                                netlink::Ipv4Address ip, uint16_t port) {
  const Slot slot{request.protocol, port};
  {
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(AddClaim(holder, slot, ip));
  }
  // The claim keeps others out while the socket is bound without the lock.
  absl::StatusOr<sys::UniqueFd> socket = bind_(request.protocol, ip, port);
  if (!socket.ok()) {
    Drop(holder, slot, ip);
    return socket.status();
  }
  absl::MutexLock lock(&mutex_);
  for (Claim& claim : claims_[slot]) {
    if (claim.ip == ip) claim.socket = *std::move(socket);
  }
  return absl::OkStatus();
}

absl::Status HostPorts::AddClaim(const std::string& holder, Slot slot, netlink::Ipv4Address ip) {
  std::vector<Claim>& claims = claims_[slot];
  for (const Claim& claim : claims) {
    const bool everywhere = claim.ip.value == 0 || ip.value == 0;
    if (claim.ip != ip && !everywhere) continue;
    return absl::AlreadyExistsError(absl::StrCat(
        "host port ", Describe(slot.first, ip, slot.second), " is already allocated by container '",
        ShortId(claim.holder), "'; remove that container or choose another port"));
  }
  claims.push_back({ip, holder, sys::UniqueFd()});
  return absl::OkStatus();
}

void HostPorts::Drop(const std::string& holder, Slot slot, netlink::Ipv4Address ip) {
  absl::MutexLock lock(&mutex_);
  auto found = claims_.find(slot);
  if (found == claims_.end()) return;
  std::erase_if(found->second,
                [&](const Claim& claim) { return claim.ip == ip && claim.holder == holder; });
  if (found->second.empty()) claims_.erase(found);
}

absl::Status HostPorts::Adopt(const std::string& holder, const std::vector<Port>& ports) {
  for (const Port& port : ports) {
    ASSIGN_OR_RETURN(netlink::Ipv4Address ip, HostAddress(port.host_ip));
    const Slot slot{port.protocol, port.host_port};
    absl::StatusOr<sys::UniqueFd> socket = bind_(port.protocol, ip, port.host_port);
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(AddClaim(holder, slot, ip));
    if (socket.ok()) claims_[slot].back().socket = *std::move(socket);
  }
  return absl::OkStatus();
}

void HostPorts::Release(const std::string& holder) {
  absl::MutexLock lock(&mutex_);
  for (auto it = claims_.begin(); it != claims_.end();) {
    std::erase_if(it->second, [&](const Claim& claim) { return claim.holder == holder; });
    it = it->second.empty() ? claims_.erase(it) : std::next(it);
  }
}

}  // namespace gantry::network
