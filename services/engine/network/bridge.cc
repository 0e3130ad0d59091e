#include "services/engine/network/bridge.h"

#include <linux/netlink.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/netlink/route.h"
#include "lib/netlink/socket.h"
#include "lib/sys/file.h"
#include "services/engine/network/address_pool.h"

namespace gantry::network {
namespace {

// Subnets tried in this order; none is a default of Docker, Podman or Kubernetes. The small ones at
// the end are for many suites on one machine.
std::vector<netlink::Ipv4Prefix> Candidates() {
  std::vector<netlink::Ipv4Prefix> candidates;
  for (const char* subnet : {"172.30.0.0/16", "172.31.0.0/16", "10.130.0.0/16", "10.131.0.0/16",
                             "192.168.224.0/20", "192.168.240.0/20"}) {
    candidates.push_back(*netlink::ParsePrefix(subnet));
  }
  const uint32_t first = netlink::ParseIpv4("10.140.0.0")->value;
  for (uint32_t i = 0; i < 64; ++i) candidates.push_back({{first + (i << 12)}, 20});
  return candidates;
}

constexpr uint32_t kLargestMtu = 1500;

// Writes only what is not so already: /proc/sys may be read-only where an administrator has set it.
absl::Status EnsureSysctl(const std::string& path, absl::string_view value) {
  absl::StatusOr<std::string> now = sys::ReadFile(path);
  if (now.ok() && absl::StripSuffix(*now, "\n") == value) return absl::OkStatus();
  return Annotate(sys::WriteControlFile(path, value),
                  absl::StrCat("set '", path, "' to ", value, " (set it before starting Gantry)"));
}

// The interfaces and routes of the host, read once.
struct Host {
  std::vector<netlink::Link> links;
  std::vector<netlink::Route> routes;
  std::vector<netlink::InterfaceAddress> addresses;

  std::string NameOf(int index) const {
    for (const netlink::Link& link : links) {
      if (link.index == index) return link.name;
    }
    return absl::StrCat(index);
  }

  // Why `subnet` cannot be used, or "". A default route overlaps everything and says nothing.
  std::string Obstacle(const netlink::Ipv4Prefix& subnet, int own_index) const {
    for (const netlink::Route& route : routes) {
      if (route.destination.length == 0 || route.index == own_index) continue;
      if (route.destination.Overlaps(subnet)) {
        return absl::StrCat("the host's route to '", route.destination.ToString(),
                            "' by interface '", NameOf(route.index), "'");
      }
    }
    for (const netlink::InterfaceAddress& address : addresses) {
      if (address.index == own_index || !subnet.Contains(address.address.address)) continue;
      return absl::StrCat("the host's address '", address.address.ToString(), "' on interface '",
                          NameOf(address.index), "'");
    }
    return "";
  }

  // Packets larger than what the way out carries would only be refused there.
  uint32_t UplinkMtu() const {
    uint32_t mtu = kLargestMtu;
    for (const netlink::Route& route : routes) {
      if (route.destination.length != 0) continue;
      for (const netlink::Link& link : links) {
        if (link.index == route.index && link.mtu >= 576) mtu = std::min(mtu, link.mtu);
      }
    }
    return mtu;
  }
};

absl::StatusOr<Host> ReadHost(netlink::Socket& socket) {
  Host host;
  ASSIGN_OR_RETURN(host.links, netlink::ListLinks(socket));
  ASSIGN_OR_RETURN(host.routes, netlink::ListRoutes(socket));
  ASSIGN_OR_RETURN(host.addresses, netlink::ListAddresses(socket));
  return host;
}

absl::StatusOr<netlink::Ipv4Prefix> ChooseSubnet(const BridgeOptions& options, const Host& host,
                                                 int own_index, int attempt) {
  if (options.in_use.has_value()) return *options.in_use;
  if (!options.subnet.empty()) {
    ASSIGN_OR_RETURN(netlink::Ipv4Prefix subnet, netlink::ParsePrefix(options.subnet));
    RETURN_IF_ERROR(AddressPool::Create(subnet).status());
    const std::string obstacle = host.Obstacle(subnet, own_index);
    if (obstacle.empty()) return subnet;
    return absl::FailedPreconditionError(absl::StrCat("subnet '", options.subnet,
                                                      "' of [engine] network_subnet overlaps ",
                                                      obstacle, "; choose another one"));
  }
  // A subnet the bridge has from an earlier life is as good as any, and routes to it exist.
  for (const netlink::InterfaceAddress& address : host.addresses) {
    const netlink::Ipv4Prefix subnet{address.address.first(), address.address.length};
    if (address.index == own_index && AddressPool::Create(subnet).ok()) return subnet;
  }
  const std::vector<netlink::Ipv4Prefix> candidates = Candidates();
  // Who lost a race for the first ones begins somewhere among the others.
  const size_t skip = attempt == 0 ? 0 : std::hash<std::string>()(RandomHex(4)) % candidates.size();
  std::string last_obstacle;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const netlink::Ipv4Prefix& subnet = candidates[(i + skip) % candidates.size()];
    last_obstacle = host.Obstacle(subnet, own_index);
    if (last_obstacle.empty()) return subnet;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("every subnet we could give to containers is in use (the last one by ",
                   last_obstacle, "); set [engine] network_subnet"));
}

// The bridge's index if it is there and right; 0 when it has to be made.
absl::StatusOr<int> FindOurs(const BridgeOptions& options, const Host& host) {
  for (const netlink::Link& link : host.links) {
    if (link.name != options.name) continue;
    if (link.kind == "bridge" && link.group == options.group) return link.index;
    return absl::FailedPreconditionError(
        absl::StrCat("interface '", options.name, "' exists and is not this suite's bridge (",
                     link.kind.empty() ? "hardware" : link.kind, ", group ", link.group,
                     "); set another [engine] network_bridge, or remove it with 'ip link delete ",
                     options.name, "' if nobody uses it"));
  }
  return 0;
}

absl::StatusOr<int> MakeBridge(netlink::Socket& socket, const BridgeOptions& options,
                               netlink::Ipv4Address gateway) {
  netlink::Batch batch;
  netlink::AddBridge(batch, {options.name, options.group, netlink::MacFor(gateway)});
  RETURN_IF_ERROR(socket.Execute(batch));
  RETURN_IF_ERROR(FAILPOINT("network.make_bridge.after_link"));
  ASSIGN_OR_RETURN(netlink::Link link, netlink::FindLink(socket, options.name));
  return link.index;
}

// One attempt; `contested` tells that somebody else took the subnet at the same moment.
absl::StatusOr<BridgeState> TryEnsureBridge(const BridgeOptions& options, int attempt,
                                            bool* contested) {
  ASSIGN_OR_RETURN(netlink::Socket socket, netlink::Socket::Open(NETLINK_ROUTE));
  ASSIGN_OR_RETURN(Host host, ReadHost(socket));
  BridgeState state;
  ASSIGN_OR_RETURN(state.index, FindOurs(options, host));
  ASSIGN_OR_RETURN(state.subnet, ChooseSubnet(options, host, state.index, attempt));
  state.gateway = {state.subnet.first().value + 1};
  state.mtu = host.UplinkMtu();

  const bool stale = std::any_of(
      host.addresses.begin(), host.addresses.end(), [&](const netlink::InterfaceAddress& address) {
        return address.index == state.index &&
               address.address != netlink::Ipv4Prefix{state.gateway, state.subnet.length};
      });
  if (state.index != 0 && stale) {
    // From before the configuration changed. Nothing runs on it, or `in_use` would have kept it.
    RETURN_IF_ERROR(RemoveBridge(options.name, options.group));
    state.index = 0;
  }
  if (state.index == 0) {
    ASSIGN_OR_RETURN(state.index, MakeBridge(socket, options, state.gateway));
  }
  netlink::Batch batch;
  netlink::AddAddress(batch, state.index, {state.gateway, state.subnet.length});
  netlink::SetUp(batch, state.index);
  RETURN_IF_ERROR(socket.Execute(batch));
  RETURN_IF_ERROR(FAILPOINT("network.make_bridge.after_address"));
  if (!options.in_use.has_value()) {
    ASSIGN_OR_RETURN(host, ReadHost(socket));
    *contested = !host.Obstacle(state.subnet, state.index).empty();
  }
  return state;
}

}  // namespace

absl::StatusOr<BridgeState> EnsureBridge(const BridgeOptions& options) {
  RETURN_IF_ERROR(netlink::CheckInterfaceName(options.name));
  // Two suites that start at the same moment may choose the same subnet. Whoever sees the other's
  // address after adding its own, yields; if both do, chance sets them apart.
  constexpr int kAttempts = 8;
  BridgeState state;
  bool contested = true;
  for (int attempt = 0; contested && attempt < kAttempts; ++attempt) {
    contested = false;
    ASSIGN_OR_RETURN(state, TryEnsureBridge(options, attempt, &contested));
    if (contested) RETURN_IF_ERROR(RemoveBridge(options.name, options.group));
  }
  if (contested) {
    return absl::UnavailableError(
        absl::StrCat("others took each of ", kAttempts, " subnets as we did; try again"));
  }
  RETURN_IF_ERROR(
      EnsureSysctl(absl::StrCat("/proc/sys/net/ipv4/conf/", options.name, "/route_localnet"), "1"));
  RETURN_IF_ERROR(EnsureSysctl("/proc/sys/net/ipv4/ip_forward", "1"));
  return state;
}

absl::Status RemoveBridge(const std::string& name, uint32_t group) {
  ASSIGN_OR_RETURN(netlink::Socket socket, netlink::Socket::Open(NETLINK_ROUTE));
  absl::StatusOr<netlink::Link> link = netlink::FindLink(socket, name);
  if (link.status().code() == absl::StatusCode::kNotFound) return absl::OkStatus();
  if (!link.ok()) return link.status();
  if (link->kind != "bridge" || link->group != group) return absl::OkStatus();
  netlink::Batch batch;
  netlink::DeleteLink(batch, name);
  return socket.Execute(batch);
}

}  // namespace gantry::network
