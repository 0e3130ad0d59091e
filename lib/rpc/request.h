// What a request carries beside its message: namespace and lease (contracts, metadata-keys.tsv).
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace gantry::rpc {

inline constexpr char kNamespaceHeader[] = "containerd-namespace";
inline constexpr char kLeaseHeader[] = "containerd-lease";

// The header `containerd-namespace`, checked; the first value wins.
// Errors: FailedPrecondition — missing; InvalidArgument — not an identifier.
absl::StatusOr<std::string> RequestNamespace(const grpc::ServerContextBase& context);

// The header `containerd-lease`; empty when there is none.
std::string RequestLease(const grpc::ServerContextBase& context);

// Any header; empty when there is none.
std::string RequestHeader(const grpc::ServerContextBase& context, absl::string_view name);

// Prepares a call: deadline (counted from now), and namespace and lease when not empty. The call
// waits, within its deadline, for a peer that is not there yet: services restart, and their callers
// should not notice.
void PrepareCall(grpc::ClientContext& context, absl::Duration timeout,
                 absl::string_view namespace_name = "", absl::string_view lease = "");

// Timeouts of calls between our processes.
inline constexpr absl::Duration kShortCall = absl::Seconds(10);  // Reads and single writes.
inline constexpr absl::Duration kLongCall = absl::Minutes(2);    // Mounts, container starts, gc.

}  // namespace gantry::rpc
