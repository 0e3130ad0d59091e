// The rules for requests that every Network applies in the same words.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/engine/network/network.h"

namespace gantry::network {

// What can be said without looking at the host. Errors: InvalidArgument — the container's id, an
// address or a MAC address is malformed, or is wanted without the bridge.
absl::Status CheckConnect(const EndpointRequest& request);

// The request's ports and, with publish_all, one for every exposed port not among them.
// Errors: InvalidArgument — a port is 0, a range runs backwards.
absl::StatusOr<std::vector<PortRequest>> PortsToPublish(const EndpointRequest& request);

absl::Status NotAdopted();
absl::Status AlreadyConnected(const std::string& container_id);

}  // namespace gantry::network
