// HostNetwork: what happens at start. The bridge is made ready, what an earlier process left is
// kept or freed, the packet filter is built, the pool begins to fill.
#include <linux/netlink.h>

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/netlink/network_namespace.h"
#include "lib/sys/file.h"
#include "services/engine/network/host_network.h"

namespace gantry::network {
namespace {

// The subnet of containers that run already, or none.
std::optional<netlink::Ipv4Prefix> SubnetInUse(const std::vector<Endpoint>& live) {
  for (const Endpoint& endpoint : live) {
    if (endpoint.mode != Mode::kBridge) continue;
    absl::StatusOr<netlink::Ipv4Address> gateway = netlink::ParseIpv4(endpoint.gateway);
    if (!gateway.ok()) continue;
    const netlink::Ipv4Prefix subnet{*gateway, endpoint.prefix_length};
    if (AddressPool::Create({subnet.first(), subnet.length}).ok()) {
      return netlink::Ipv4Prefix{subnet.first(), subnet.length};
    }
  }
  return std::nullopt;
}

const netlink::Link* FindLink(const SandboxStore::Inventory& inventory, const std::string& name) {
  for (const netlink::Link& link : inventory.links) {
    if (link.name == name) return &link;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<AdoptReport> HostNetwork::Adopt(const std::vector<Endpoint>& live) {
  absl::MutexLock setup(&setup_mutex_);
  {
    absl::MutexLock lock(&mutex_);
    if (adopted_) return absl::FailedPreconditionError("the network has been adopted already");
  }
  AdoptReport report;
  RETURN_IF_ERROR(sys::MakeDirectories(store_.directory()));
  ASSIGN_OR_RETURN(SandboxStore::Inventory inventory, store_.List());
  RETURN_IF_ERROR(RemoveStrayBridges(inventory, &report));

  ASSIGN_OR_RETURN(firewall_, Firewall::Create(options_.bridge));
  absl::Status bridge = SetUpBridge(SubnetInUse(live));
  for (const Endpoint& endpoint : live) {
    absl::Status kept = Keep(endpoint, inventory);
    if (!kept.ok()) {
      report.lost.push_back({endpoint.container_id, std::string(kept.message())});
    }
  }
  RemoveStrays(inventory, &report);
  if (bridge.ok()) bridge = BuildFirewall();
  if (bridge.ok()) bridge = ReattachLinks(inventory);
  if (!bridge.ok()) {
    report.problems.push_back(
        absl::StrCat("bridge '", options_.bridge, "' cannot be used: ", bridge.message()));
  }
  RETURN_IF_ERROR(StartPool(bridge.ok()));
  absl::MutexLock lock(&mutex_);
  bridge_status_ = bridge;
  adopted_ = true;
  return report;
}

absl::Status HostNetwork::EnsureBridgeReady() {
  {
    absl::MutexLock lock(&mutex_);
    if (bridge_status_.ok()) return absl::OkStatus();
  }
  absl::MutexLock setup(&setup_mutex_);
  {
    absl::MutexLock lock(&mutex_);
    if (bridge_status_.ok()) return absl::OkStatus();  // Somebody else was faster.
  }
  std::optional<netlink::Ipv4Prefix> in_use;
  {
    absl::MutexLock lock(&mutex_);
    if (addresses_.has_value() && addresses_->used() > 0) in_use = addresses_->subnet();
  }
  absl::Status ready = SetUpBridge(in_use);
  if (ready.ok()) ready = BuildFirewall();
  RETURN_IF_ERROR(Annotate(ready, absl::StrCat("set up bridge '", options_.bridge, "'")));
  {
    absl::MutexLock lock(&mutex_);
    bridge_status_ = absl::OkStatus();
  }
  pool_->Resize(PoolSizes(true));
  return absl::OkStatus();
}

absl::Status HostNetwork::SetUpBridge(std::optional<netlink::Ipv4Prefix> in_use) {
  if (in_use.has_value()) {
    // Even without a bridge these addresses are taken.
    absl::MutexLock lock(&mutex_);
    if (!addresses_.has_value()) {
      ASSIGN_OR_RETURN(addresses_, AddressPool::Create(*in_use));
    }
  }
  ASSIGN_OR_RETURN(BridgeState state,
                   EnsureBridge({options_.bridge, store_.group(), options_.subnet, in_use}));
  absl::MutexLock lock(&mutex_);
  bridge_ = state;
  if (!addresses_.has_value() || addresses_->subnet() != state.subnet) {
    ASSIGN_OR_RETURN(addresses_, AddressPool::Create(state.subnet));
  }
  return absl::OkStatus();
}

absl::Status HostNetwork::BuildFirewall() {
  std::vector<Firewall::Publication> publications;
  for (const Record& record : Records()) {
    if (record.sandbox.ip.has_value()) {
      publications.push_back({*record.sandbox.ip, record.endpoint.ports});
    }
  }
  netlink::Ipv4Prefix subnet;
  {
    absl::MutexLock lock(&mutex_);
    subnet = bridge_.subnet;
  }
  return firewall_->Rebuild(subnet, publications);
}

absl::Status HostNetwork::Keep(const Endpoint& endpoint, const SandboxStore::Inventory& inventory) {
  Record record{endpoint, {endpoint.endpoint_id}, true};
  if (endpoint.mode != Mode::kHost) {
    if (endpoint.netns_path != store_.Path(endpoint.endpoint_id)) {
      return absl::NotFoundError(absl::StrCat("its network namespace '", endpoint.netns_path,
                                              "' is not below '", store_.directory(), "'"));
    }
    RETURN_IF_ERROR(netlink::OpenNamespace(endpoint.netns_path).status());
  }
  if (endpoint.mode == Mode::kBridge) {
    ASSIGN_OR_RETURN(record.sandbox.ip, netlink::ParseIpv4(endpoint.ip));
    ASSIGN_OR_RETURN(record.sandbox.mac, netlink::ParseMac(endpoint.mac));
    const std::string link = SandboxStore::LinkName(endpoint.endpoint_id);
    if (FindLink(inventory, link) == nullptr) {
      return absl::NotFoundError(absl::StrCat("its interface '", link, "' is gone"));
    }
    {
      absl::MutexLock lock(&mutex_);
      RETURN_IF_ERROR(addresses_->Take(*record.sandbox.ip));
    }
    absl::Status ports = ports_.Adopt(endpoint.container_id, endpoint.ports);
    if (!ports.ok()) {
      ports_.Release(endpoint.container_id);
      GiveAddress(record.sandbox);
      return ports;
    }
  }
  absl::MutexLock lock(&mutex_);
  records_[endpoint.container_id] = std::move(record);
  return absl::OkStatus();
}

// A bridge of ours by another name is from before the configuration changed. Its ports move to the
// new one.
absl::Status HostNetwork::RemoveStrayBridges(const SandboxStore::Inventory& inventory,
                                             AdoptReport* report) {
  for (const netlink::Link& bridge : inventory.bridges) {
    if (bridge.name == options_.bridge) continue;
    RETURN_IF_ERROR(RemoveBridge(bridge.name, store_.group()));
    RETURN_IF_ERROR(Firewall::RemoveTableOf(bridge.name));
    report->removed.push_back(absl::StrCat("bridge ", bridge.name));
  }
  return absl::OkStatus();
}

void HostNetwork::RemoveStrays(const SandboxStore::Inventory& inventory, AdoptReport* report) {
  std::set<std::string> ours;
  for (const Record& record : Records()) {
    ours.insert(SandboxStore::ShortName(record.sandbox.endpoint_id));
    ours.insert(SandboxStore::LinkName(record.sandbox.endpoint_id));
  }
  const auto note = [&](absl::string_view kind, const std::string& name, absl::Status removed) {
    if (removed.ok()) {
      report->removed.push_back(absl::StrCat(kind, " ", name));
    } else {
      report->problems.push_back(absl::StrCat(kind, " ", name, ": ", removed.message()));
    }
  };
  // Interfaces first: with them gone, their addresses are free whoever holds the namespaces.
  for (const netlink::Link& link : inventory.links) {
    if (!ours.contains(link.name)) note("veth", link.name, store_.RemoveLink(link.name));
  }
  for (const std::string& file : inventory.files) {
    if (!ours.contains(file)) note("netns", file, store_.RemoveFile(file));
  }
}

absl::Status HostNetwork::ReattachLinks(const SandboxStore::Inventory& inventory) {
  int bridge_index = 0;
  {
    absl::MutexLock lock(&mutex_);
    bridge_index = bridge_.index;
  }
  netlink::Batch batch;
  for (const Record& record : Records()) {
    const netlink::Link* link =
        FindLink(inventory, SandboxStore::LinkName(record.sandbox.endpoint_id));
    if (link == nullptr || link->master == bridge_index) continue;
    netlink::SetMaster(batch, link->index, bridge_index);
    netlink::SetUp(batch, link->index);
  }
  if (batch.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(netlink::Socket socket, netlink::Socket::Open(NETLINK_ROUTE));
  return socket.Execute(batch);
}

SandboxPool::Sizes HostNetwork::PoolSizes(bool bridge_ready) const {
  return {bridge_ready ? options_.pool_size : 0, options_.pool_size / 2};
}

absl::Status HostNetwork::StartPool(bool bridge_ready) {
  SandboxPool::Hooks hooks;
  hooks.make = [this](bool bridged) { return MakeFresh(bridged); };
  hooks.remove = [this](std::vector<Sandbox> sandboxes) {
    return RemoveSandboxes(std::move(sandboxes));
  };
  hooks.on_event = [this] { MendFirewall(); };
  hooks.watched_fd = firewall_->event_fd();
  RETURN_IF_ERROR(FAILPOINT("network.adopt.before_pool"));
  ASSIGN_OR_RETURN(pool_, SandboxPool::Create(PoolSizes(bridge_ready), std::move(hooks)));
  return absl::OkStatus();
}

}  // namespace gantry::network
