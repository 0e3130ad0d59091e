#include "services/engine/network/endpoint_request.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/netlink/address.h"

namespace gantry::network {

absl::Status CheckConnect(const EndpointRequest& request) {
  RETURN_IF_ERROR(CheckIdentifier("container_id", request.container_id));
  if (request.mode != Mode::kBridge) {
    if (request.ip.empty() && request.mac.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("an ip or mac address cannot be chosen with network '", ModeName(request.mode),
                     "'; use network 'bridge'"));
  }
  if (!request.ip.empty()) RETURN_IF_ERROR(netlink::ParseIpv4(request.ip).status());
  if (!request.mac.empty()) RETURN_IF_ERROR(netlink::ParseMac(request.mac).status());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PortRequest>> PortsToPublish(const EndpointRequest& request) {
  std::vector<PortRequest> ports = request.ports;
  for (const PortRequest& port : ports) {
    if (port.container_port == 0) {
      return absl::InvalidArgumentError("a published port needs a container port from 1 to 65535");
    }
    if (port.host_port_end != 0 && port.host_port_end < port.host_port) {
      return absl::InvalidArgumentError(absl::StrCat("host port range ", port.host_port, "-",
                                                     port.host_port_end, " runs backwards"));
    }
  }
  if (!request.publish_all) return ports;
  for (const ExposedPort& exposed : request.exposed) {
    if (exposed.port == 0) {
      return absl::InvalidArgumentError("an exposed port must be from 1 to 65535");
    }
    const bool published = std::any_of(ports.begin(), ports.end(), [&](const PortRequest& port) {
      return port.protocol == exposed.protocol && port.container_port == exposed.port;
    });
    if (!published) ports.push_back({exposed.protocol, exposed.port});
  }
  return ports;
}

absl::Status NotAdopted() {
  return absl::FailedPreconditionError(
      "the network is not ready: what an earlier process left has not been adopted yet");
}

absl::Status AlreadyConnected(const std::string& container_id) {
  return absl::AlreadyExistsError(
      absl::StrCat("container '", container_id.substr(0, 12),
                   "' is connected to the network already; release it first"));
}

}  // namespace gantry::network
