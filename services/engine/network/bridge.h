// The bridge all containers of a suite are ports of, and the host's settings it needs.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/netlink/address.h"
#include "services/engine/network/sandbox.h"

namespace gantry::network {

struct BridgeOptions {
  std::string name;
  uint32_t group = 0;  // The owner's mark; a bridge without it is not touched.
  // Empty: the first of our candidates that overlaps no route of the host.
  std::string subnet;
  // The subnet of containers that run already; it wins over `subnet`.
  std::optional<netlink::Ipv4Prefix> in_use;
};

// Makes the bridge ready: there, up, with the first address of its subnet, packets forwarded
// between it and the host's other interfaces, and loopback traffic allowed onto it (for ports
// published to 127.0.0.1; the firewall keeps containers from using that the other way).
//
// A bridge of ours that exists keeps its subnet, unless another one is configured and nothing runs
// on it.
//
// Errors: FailedPrecondition — an interface of this name belongs to somebody else, the configured
// subnet overlaps a route (named), or every candidate does; InvalidArgument — name or subnet
// malformed; PermissionDenied — needs CAP_NET_ADMIN, or /proc/sys is read-only.
absl::StatusOr<BridgeState> EnsureBridge(const BridgeOptions& options);

// Fine when it is not there, or is not the bridge of `group`'s owner: then it stays.
absl::Status RemoveBridge(const std::string& name, uint32_t group);

}  // namespace gantry::network
