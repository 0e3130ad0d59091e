#include "services/engine/network/testing/fake_network.h"

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "services/engine/network/endpoint_request.h"

namespace gantry::network {

FakeNetwork::FakeNetwork(const std::string& subnet)
    : addresses_(*AddressPool::Create(*netlink::ParsePrefix(subnet))),
      ports_([this](Protocol protocol, netlink::Ipv4Address, uint16_t port) {
        return Bind(protocol, port);
      }) {}

absl::StatusOr<sys::UniqueFd> FakeNetwork::Bind(Protocol protocol, uint16_t port) {
  absl::MutexLock lock(&mutex_);
  if (occupied_.contains({protocol, port})) {
    return absl::AlreadyExistsError(
        absl::StrCat("host port '0.0.0.0:", port, "/", ProtocolName(protocol),
                     "' is already in use by a program of the host; choose another port"));
  }
  return sys::UniqueFd();
}

absl::StatusOr<Endpoint> FakeNetwork::Connect(const EndpointRequest& request) {
  RETURN_IF_ERROR(CheckConnect(request));
  ASSIGN_OR_RETURN(std::vector<PortRequest> wanted, PortsToPublish(request));

  Endpoint endpoint;
  endpoint.container_id = request.container_id;
  endpoint.mode = request.mode;
  endpoint.endpoint_id = RandomHex(32);
  endpoint.network_id = std::string(64, '1');
  if (request.mode != Mode::kHost) {
    endpoint.netns_path = absl::StrCat("/run/fake/netns/", endpoint.endpoint_id.substr(0, 12));
    endpoint.sandbox_key = endpoint.netns_path;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (!adopted_) return NotAdopted();
    RETURN_IF_ERROR(std::exchange(next_connect_, absl::OkStatus()));
    if (endpoints_.contains(request.container_id)) return AlreadyConnected(request.container_id);
    if (request.mode == Mode::kBridge) RETURN_IF_ERROR(TakeAddress(request, &endpoint));
    endpoints_[request.container_id] = endpoint;
  }
  if (request.mode != Mode::kBridge) return endpoint;

  absl::StatusOr<std::vector<Port>> ports = ports_.Reserve(request.container_id, wanted);
  absl::MutexLock lock(&mutex_);
  if (!ports.ok()) {
    addresses_.Give(*netlink::ParseIpv4(endpoint.ip));
    endpoints_.erase(request.container_id);
    return ports.status();
  }
  endpoint.ports = *std::move(ports);
  endpoints_[request.container_id] = endpoint;
  return endpoint;
}

absl::Status FakeNetwork::TakeAddress(const EndpointRequest& request, Endpoint* endpoint) {
  netlink::Ipv4Address address;
  if (request.ip.empty()) {
    ASSIGN_OR_RETURN(address, addresses_.TakeNext());
  } else {
    ASSIGN_OR_RETURN(address, netlink::ParseIpv4(request.ip));
    RETURN_IF_ERROR(addresses_.Take(address));
  }
  endpoint->ip = address.ToString();
  endpoint->mac = request.mac.empty() ? netlink::FormatMac(netlink::MacFor(address)) : request.mac;
  endpoint->prefix_length = addresses_.subnet().length;
  endpoint->gateway = addresses_.gateway().ToString();
  endpoint->bridge = "gantry0";
  return absl::OkStatus();
}

absl::Status FakeNetwork::Release(const std::string& container_id) {
  {
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(std::exchange(next_release_, absl::OkStatus()));
    auto found = endpoints_.find(container_id);
    if (found == endpoints_.end()) return absl::OkStatus();
    if (!found->second.ip.empty()) addresses_.Give(*netlink::ParseIpv4(found->second.ip));
    endpoints_.erase(found);
  }
  ports_.Release(container_id);
  return absl::OkStatus();
}

absl::StatusOr<AdoptReport> FakeNetwork::Adopt(const std::vector<Endpoint>& live) {
  AdoptReport report;
  for (const Endpoint& endpoint : live) {
    {
      absl::MutexLock lock(&mutex_);
      if (lost_.contains(endpoint.container_id)) {
        report.lost.push_back({endpoint.container_id, "its network namespace is gone"});
        continue;
      }
      if (endpoint.mode == Mode::kBridge) {
        ASSIGN_OR_RETURN(netlink::Ipv4Address address, netlink::ParseIpv4(endpoint.ip));
        RETURN_IF_ERROR(addresses_.Take(address));
      }
      endpoints_[endpoint.container_id] = endpoint;
    }
    RETURN_IF_ERROR(ports_.Adopt(endpoint.container_id, endpoint.ports));
  }
  absl::MutexLock lock(&mutex_);
  adopted_ = true;
  return report;
}

NetworkInfo FakeNetwork::Info() const {
  absl::MutexLock lock(&mutex_);
  NetworkInfo info;
  info.id = std::string(64, '1');
  info.name = "bridge";
  info.bridge = adopted_ ? "gantry0" : "";
  info.subnet = addresses_.subnet().ToString();
  info.gateway = addresses_.gateway().ToString();
  info.addresses_total = addresses_.capacity();
  info.addresses_used = addresses_.used();
  info.endpoints = endpoints_.size();
  for (const auto& [id, endpoint] : endpoints_) info.connected.push_back(endpoint);
  return info;
}

absl::StatusOr<rpc::AuditReport> FakeNetwork::Audit() {
  absl::MutexLock lock(&mutex_);
  rpc::AuditReport report;
  report.checked["netns"] = endpoints_.size();
  return report;
}

void FakeNetwork::FailNextConnect(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  next_connect_ = std::move(status);
}

void FakeNetwork::FailNextRelease(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  next_release_ = std::move(status);
}

void FakeNetwork::OccupyHostPort(Protocol protocol, uint16_t port) {
  absl::MutexLock lock(&mutex_);
  occupied_.insert({protocol, port});
}

void FakeNetwork::Lose(const std::string& container_id) {
  absl::MutexLock lock(&mutex_);
  lost_.insert(container_id);
}

std::vector<std::string> FakeNetwork::Connected() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> ids;
  for (const auto& [id, endpoint] : endpoints_) ids.push_back(id);
  return ids;
}

}  // namespace gantry::network
