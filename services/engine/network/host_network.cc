#include "services/engine/network/host_network.h"

#include <linux/netlink.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "services/engine/network/endpoint_request.h"
#include "services/engine/network/owner_mark.h"

namespace gantry::network {
namespace {

constexpr int kLargestPool = 64;
// How long a start waits for addresses that are being freed when there is no other.
constexpr absl::Duration kAddressPatience = absl::Seconds(10);

std::string NetnsDirectory(const std::string& run_dir) { return absl::StrCat(run_dir, "/netns"); }

}  // namespace

absl::StatusOr<std::unique_ptr<HostNetwork>> HostNetwork::Create(
    const HostNetworkOptions& options) {
  RETURN_IF_ERROR(Annotate(netlink::CheckInterfaceName(options.bridge), "[engine] network_bridge"));
  if (!options.subnet.empty()) {
    absl::StatusOr<netlink::Ipv4Prefix> subnet = netlink::ParsePrefix(options.subnet);
    absl::Status usable = subnet.ok() ? AddressPool::Create(*subnet).status() : subnet.status();
    RETURN_IF_ERROR(Annotate(usable, "[engine] network_subnet"));
  }
  if (options.pool_size < 0 || options.pool_size > kLargestPool) {
    return absl::InvalidArgumentError(absl::StrCat(
        "[engine] network_pool_size is ", options.pool_size, "; choose 0 to ", kLargestPool));
  }
  if (options.run_dir.empty() || options.run_dir[0] != '/') {
    return absl::InvalidArgumentError(
        absl::StrCat("run directory '", options.run_dir, "' is not an absolute path"));
  }
  return std::unique_ptr<HostNetwork>(new HostNetwork(options));
}

HostNetwork::HostNetwork(const HostNetworkOptions& options)
    : options_(options),
      store_(NetnsDirectory(options.run_dir)),
      bridge_network_id_(StableId(absl::StrCat("bridge ", store_.directory()))) {}

HostNetwork::~HostNetwork() {
  pool_.reset();
  if (firewall_ == nullptr || !Records().empty()) return;
  absl::Status removed =
      FirstError(firewall_->Remove(), RemoveBridge(options_.bridge, store_.group()));
  if (!removed.ok()) {
    log::Warning("unused bridge could not be removed; the next start will use it again",
                 {{"bridge", options_.bridge}, {"error", removed}});
  }
}

absl::StatusOr<Endpoint> HostNetwork::Connect(const EndpointRequest& request) {
  RETURN_IF_ERROR(CheckConnect(request));
  ASSIGN_OR_RETURN(std::vector<PortRequest> wanted, PortsToPublish(request));
  RETURN_IF_ERROR(Begin(request.container_id));
  absl::Cleanup forget = [&] { Forget(request.container_id); };

  Record record;
  record.connected = true;
  if (request.mode == Mode::kHost) {
    record.sandbox.endpoint_id = RandomHex(32);
    record.endpoint = Describe(request, record.sandbox);
  } else {
    if (request.mode == Mode::kBridge) RETURN_IF_ERROR(EnsureBridgeReady());
    ASSIGN_OR_RETURN(record.sandbox, ObtainSandbox(request));
    absl::Cleanup retire = [&] { pool_->Retire(record.sandbox); };
    RETURN_IF_ERROR(FAILPOINT("network.connect.after_sandbox"));
    record.endpoint = Describe(request, record.sandbox);
    if (request.mode == Mode::kBridge && !wanted.empty()) {
      ASSIGN_OR_RETURN(record.endpoint.ports, ports_.Reserve(request.container_id, wanted));
      absl::Cleanup give_back = [&] { ports_.Release(request.container_id); };
      RETURN_IF_ERROR(firewall_->Publish(*record.sandbox.ip, record.endpoint.ports));
      absl::Cleanup unpublish = [&] {
        firewall_->Unpublish(*record.sandbox.ip, record.endpoint.ports).IgnoreError();
      };
      RETURN_IF_ERROR(FAILPOINT("network.connect.after_publish"));
      std::move(unpublish).Cancel();
      std::move(give_back).Cancel();
    }
    std::move(retire).Cancel();
  }
  std::move(forget).Cancel();
  absl::MutexLock lock(&mutex_);
  Record& kept = records_[request.container_id];
  kept = std::move(record);
  return kept.endpoint;
}

absl::Status HostNetwork::Begin(const std::string& container_id) {
  absl::MutexLock lock(&mutex_);
  if (!adopted_) return NotAdopted();
  if (!records_.try_emplace(container_id).second) return AlreadyConnected(container_id);
  return absl::OkStatus();
}

void HostNetwork::Forget(const std::string& container_id) {
  absl::MutexLock lock(&mutex_);
  records_.erase(container_id);
}

Endpoint HostNetwork::Describe(const EndpointRequest& request, const Sandbox& sandbox) const {
  Endpoint endpoint;
  endpoint.container_id = request.container_id;
  endpoint.mode = request.mode;
  endpoint.endpoint_id = sandbox.endpoint_id;
  if (request.mode == Mode::kHost) {
    endpoint.network_id = StableId(absl::StrCat("host ", store_.directory()));
    return endpoint;
  }
  endpoint.netns_path = store_.Path(sandbox.endpoint_id);
  endpoint.sandbox_key = endpoint.netns_path;
  if (request.mode == Mode::kNone) {
    endpoint.network_id = StableId(absl::StrCat("none ", store_.directory()));
    return endpoint;
  }
  endpoint.network_id = bridge_network_id_;
  endpoint.ip = sandbox.ip->ToString();
  endpoint.mac = netlink::FormatMac(sandbox.mac);
  endpoint.bridge = options_.bridge;
  absl::MutexLock lock(&mutex_);
  endpoint.prefix_length = bridge_.subnet.length;
  endpoint.gateway = bridge_.gateway.ToString();
  return endpoint;
}

absl::StatusOr<Sandbox> HostNetwork::ObtainSandbox(const EndpointRequest& request) {
  const bool bridged = request.mode == Mode::kBridge;
  if (!request.ip.empty() || !request.mac.empty()) return ObtainWithAddress(request);
  if (std::optional<Sandbox> ready = pool_->Take(bridged)) {
    ++pool_hits_;
    return *std::move(ready);
  }
  ++pool_misses_;
  absl::StatusOr<Sandbox> made = MakeFresh(bridged);
  if (made.status().code() != absl::StatusCode::kResourceExhausted) return made;
  // Out of addresses. Some may be on their way back, or in a namespace just being made ready.
  pool_->Settle(kAddressPatience);
  if (std::optional<Sandbox> ready = pool_->Take(bridged)) return *std::move(ready);
  return MakeFresh(bridged);
}

absl::StatusOr<Sandbox> HostNetwork::ObtainWithAddress(const EndpointRequest& request) {
  ++pool_misses_;
  Sandbox sandbox{RandomHex(32)};
  if (request.ip.empty()) {
    absl::MutexLock lock(&mutex_);
    ASSIGN_OR_RETURN(sandbox.ip, addresses_->TakeNext());
  } else {
    ASSIGN_OR_RETURN(sandbox.ip, netlink::ParseIpv4(request.ip));
    // A namespace made ready may have the address: taking it over keeps the address ours all along.
    std::optional<Sandbox> ready = pool_->TakeWithAddress(*sandbox.ip);
    if (ready.has_value() && request.mac.empty()) return *std::move(ready);
    if (ready.has_value()) {
      RETURN_IF_ERROR(store_.Remove({ready->endpoint_id}));
    } else {
      RETURN_IF_ERROR(TakeAddress(*sandbox.ip));
    }
  }
  sandbox.mac = netlink::MacFor(*sandbox.ip);
  if (!request.mac.empty()) {
    ASSIGN_OR_RETURN(sandbox.mac, netlink::ParseMac(request.mac));
  }
  return MakeWith(std::move(sandbox));
}

absl::Status HostNetwork::TakeAddress(netlink::Ipv4Address ip) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [id, record] : records_) {
    if (record.sandbox.ip != ip) continue;
    return absl::AlreadyExistsError(absl::StrCat("address '", ip.ToString(),
                                                 "' is in use by container '", id.substr(0, 12),
                                                 "'; choose another one"));
  }
  return addresses_->Take(ip);
}

absl::StatusOr<Sandbox> HostNetwork::MakeFresh(bool bridged) {
  Sandbox sandbox{RandomHex(32)};
  if (bridged) {
    absl::MutexLock lock(&mutex_);
    ASSIGN_OR_RETURN(sandbox.ip, addresses_->TakeNext());
    sandbox.mac = netlink::MacFor(*sandbox.ip);
  }
  return MakeWith(std::move(sandbox));
}

absl::StatusOr<Sandbox> HostNetwork::MakeWith(Sandbox sandbox) {
  BridgeState bridge;
  {
    absl::MutexLock lock(&mutex_);
    bridge = bridge_;
  }
  absl::Status made = store_.Make(sandbox, bridge);
  if (made.ok()) return sandbox;
  GiveAddress(sandbox);
  return made;
}

void HostNetwork::GiveAddress(const Sandbox& sandbox) {
  if (!sandbox.ip.has_value()) return;
  absl::MutexLock lock(&mutex_);
  if (addresses_.has_value()) addresses_->Give(*sandbox.ip);
}

absl::Status HostNetwork::Release(const std::string& container_id) {
  RETURN_IF_ERROR(FAILPOINT("network.release.before"));
  Record record;
  {
    absl::MutexLock lock(&mutex_);
    auto found = records_.find(container_id);
    if (found == records_.end()) return absl::OkStatus();
    if (!found->second.connected) {
      return absl::FailedPreconditionError(
          absl::StrCat("container '", container_id.substr(0, 12),
                       "' is being connected to the network; release it when that has ended"));
    }
    record = std::move(found->second);
    records_.erase(found);
  }
  if (record.endpoint.mode == Mode::kHost) return absl::OkStatus();
  // The rules go before the ports are given back, or the next holder's packets would come here.
  absl::Status unpublished;
  if (!record.endpoint.ports.empty()) {
    unpublished = firewall_->Unpublish(*record.sandbox.ip, record.endpoint.ports);
  }
  absl::Status stopped = FAILPOINT("network.release.after_unpublish");
  ports_.Release(container_id);
  pool_->Retire(std::move(record.sandbox));
  return FirstError(unpublished, stopped);
}

std::vector<Sandbox> HostNetwork::RemoveSandboxes(std::vector<Sandbox> sandboxes) {
  std::vector<std::string> ids;
  for (const Sandbox& sandbox : sandboxes) ids.push_back(sandbox.endpoint_id);
  std::vector<Sandbox> left;
  if (absl::Status removed = store_.Remove(ids); !removed.ok()) {
    // One by one, to know which it was.
    for (Sandbox& sandbox : sandboxes) {
      if (removed = store_.Remove({sandbox.endpoint_id}); removed.ok()) continue;
      log::Debug("a network namespace stays for now",
                 {{"endpoint", sandbox.endpoint_id}, {"error", removed}});
      left.push_back(sandbox);
    }
  }
  // An address is free when nothing answers to it any more.
  for (const Sandbox& sandbox : sandboxes) {
    const bool stays = std::any_of(left.begin(), left.end(), [&](const Sandbox& other) {
      return other.endpoint_id == sandbox.endpoint_id;
    });
    if (!stays) GiveAddress(sandbox);
  }
  return left;
}

void HostNetwork::MendFirewall() {
  absl::StatusOr<bool> mended = firewall_->HandleEvents();
  if (!mended.ok()) {
    log::Error("packet filter table was changed by somebody else and could not be rebuilt",
               {{"table", firewall_->table()}, {"error", mended.status()}});
  } else if (*mended) {
    ++firewall_repairs_;
    log::Warning("packet filter table was changed by somebody else; rebuilt it",
                 {{"table", firewall_->table()}});
  }
}

void HostNetwork::Settle() {
  if (pool_ != nullptr) pool_->Settle();
}

std::vector<HostNetwork::Record> HostNetwork::Records() const {
  absl::MutexLock lock(&mutex_);
  std::vector<Record> records;
  for (const auto& [id, record] : records_) {
    if (record.connected) records.push_back(record);
  }
  return records;
}

NetworkInfo HostNetwork::Info() const {
  NetworkInfo info;
  info.id = bridge_network_id_;
  info.name = "bridge";
  for (Record& record : Records()) info.connected.push_back(std::move(record.endpoint));
  info.endpoints = info.connected.size();
  info.pool_hits = pool_hits_;
  info.pool_misses = pool_misses_;
  info.firewall_repairs = firewall_repairs_;
  absl::MutexLock lock(&mutex_);
  if (!adopted_) return info;
  info.pool_ready = pool_->Ready().size();
  info.teardowns_pending = pool_->retired();
  info.bridge = options_.bridge;
  if (!addresses_.has_value()) return info;
  info.subnet = addresses_->subnet().ToString();
  info.gateway = addresses_->gateway().ToString();
  info.addresses_total = addresses_->capacity();
  info.addresses_used = addresses_->used();
  return info;
}

}  // namespace gantry::network
