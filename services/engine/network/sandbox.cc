#include "services/engine/network/sandbox.h"

#include <linux/netlink.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/netlink/network_namespace.h"
#include "lib/netlink/socket.h"
#include "lib/sys/file.h"
#include "services/engine/network/owner_mark.h"

namespace gantry::network {
namespace {

constexpr char kContainerInterface[] = "eth0";
constexpr char kLinkPrefix[] = "gt";

struct Sysctl {
  const char* path;
  const char* value;
};

// `default` is what interfaces made later start with; `lo` is there already and keeps its ::1.
constexpr Sysctl kSysctls[] = {
    {"/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"},
    {"/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"},
    {"/proc/sys/net/ipv4/ping_group_range", "0 2147483647"},
};

// /proc/sys/net shows the namespace of the thread that opens it.
absl::Status SetSysctls() {
  for (const Sysctl& sysctl : kSysctls) {
    absl::Status set = sys::WriteControlFile(sysctl.path, sysctl.value);
    // A kernel without IPv6 has nothing to turn off.
    if (!set.ok() && set.code() != absl::StatusCode::kNotFound) return set;
  }
  return absl::OkStatus();
}

}  // namespace

SandboxStore::SandboxStore(std::string directory)
    : directory_(std::move(directory)), group_(InterfaceGroup(directory_)) {}

std::string SandboxStore::LinkName(const std::string& endpoint_id) {
  return absl::StrCat(kLinkPrefix, ShortName(endpoint_id));
}

std::string SandboxStore::Path(const std::string& endpoint_id) const {
  return absl::StrCat(directory_, "/", ShortName(endpoint_id));
}

absl::Status SandboxStore::Make(const Sandbox& sandbox, const BridgeState& bridge) const {
  RETURN_IF_ERROR(FAILPOINT("network.make_sandbox.before"));
  // Opened here, so it speaks to the host's namespace even from the thread inside the new one.
  ASSIGN_OR_RETURN(netlink::Socket host, netlink::Socket::Open(NETLINK_ROUTE));
  const std::string path = Path(sandbox.endpoint_id);
  absl::Status made = netlink::MakeNamespace(path, [&](const sys::UniqueFd& network_namespace) {
                        return FillNamespace(sandbox, bridge, host, network_namespace);
                      }).status();
  if (made.ok()) made = FAILPOINT("network.make_sandbox.after");
  if (!made.ok()) {
    Remove({sandbox.endpoint_id}).IgnoreError();
    return Annotate(made, absl::StrCat("make the network namespace '", path, "'"));
  }
  return absl::OkStatus();
}

absl::Status SandboxStore::FillNamespace(const Sandbox& sandbox, const BridgeState& bridge,
                                         netlink::Socket& host, const sys::UniqueFd& made) const {
  RETURN_IF_ERROR(SetSysctls());
  ASSIGN_OR_RETURN(netlink::Socket inside, netlink::Socket::Open(NETLINK_ROUTE));
  constexpr int kLoopbackIndex = 1;  // In every namespace.
  netlink::Batch batch;
  netlink::SetUp(batch, kLoopbackIndex);
  if (sandbox.ip.has_value()) {
    netlink::VethSpec spec;
    spec.name = LinkName(sandbox.endpoint_id);
    spec.group = group_;
    spec.bridge_index = bridge.index;
    spec.mtu = bridge.mtu;
    spec.peer_name = kContainerInterface;
    spec.peer_mac = sandbox.mac;
    spec.peer_namespace = &made;
    netlink::Batch pair;
    netlink::AddVeth(pair, spec);
    RETURN_IF_ERROR(host.Execute(pair));
    RETURN_IF_ERROR(FAILPOINT("network.make_sandbox.after_veth"));
    ASSIGN_OR_RETURN(netlink::Link eth0, netlink::FindLink(inside, kContainerInterface));
    netlink::SetUp(batch, eth0.index);
    netlink::AddAddress(batch, eth0.index, {*sandbox.ip, bridge.subnet.length});
    netlink::AddDefaultRoute(batch, bridge.gateway);
  }
  return inside.Execute(batch);
}

absl::Status SandboxStore::Remove(const std::vector<std::string>& endpoint_ids) const {
  if (endpoint_ids.empty()) return absl::OkStatus();
  netlink::Batch batch;
  if (endpoint_ids.size() == 1) {
    netlink::DeleteLink(batch, LinkName(endpoint_ids[0]));
  } else {
    for (const std::string& id : endpoint_ids) {
      netlink::SetGroup(batch, LinkName(id), GroupLeaving());
    }
    netlink::DeleteGroup(batch, GroupLeaving());
  }
  absl::StatusOr<netlink::Socket> host = netlink::Socket::Open(NETLINK_ROUTE);
  absl::Status result = host.ok() ? host->Execute(batch) : host.status();
  // An interface that is gone already is as good; with several, each is tried again alone.
  if (endpoint_ids.size() == 1 && absl::IsNotFound(result)) result = absl::OkStatus();
  result = FirstError(result, FAILPOINT("network.remove_sandbox.after_links"));
  for (const std::string& id : endpoint_ids) {
    result = FirstError(result, netlink::RemoveNamespace(Path(id)));
  }
  return result;
}

absl::Status SandboxStore::RemoveFile(const std::string& name) const {
  return netlink::RemoveNamespace(absl::StrCat(directory_, "/", name));
}

absl::Status SandboxStore::RemoveLink(const std::string& name) const {
  ASSIGN_OR_RETURN(netlink::Socket host, netlink::Socket::Open(NETLINK_ROUTE));
  netlink::Batch batch;
  netlink::DeleteLink(batch, name);
  return host.Execute(batch);
}

absl::StatusOr<SandboxStore::Inventory> SandboxStore::List() const {
  Inventory inventory;
  ASSIGN_OR_RETURN(inventory.files, sys::ListDirectory(directory_));
  ASSIGN_OR_RETURN(netlink::Socket host, netlink::Socket::Open(NETLINK_ROUTE));
  ASSIGN_OR_RETURN(std::vector<netlink::Link> links, netlink::ListLinks(host));
  for (netlink::Link& link : links) {
    if (link.group != group_ && link.group != GroupLeaving()) continue;
    if (link.kind == "bridge") {
      inventory.bridges.push_back(std::move(link));
    } else if (link.kind == "veth" && absl::StartsWith(link.name, kLinkPrefix)) {
      inventory.links.push_back(std::move(link));
    }
  }
  return inventory;
}

}  // namespace gantry::network
