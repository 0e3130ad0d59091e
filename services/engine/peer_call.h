// One call to another process of the suite, as the engine makes all of them.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"

namespace gantry::engine {

// The peer's error; when it did not answer, in words that name it.
inline absl::Status PeerStatus(const grpc::Status& status, absl::string_view process) {
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE ||
      status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return absl::UnavailableError(absl::StrCat("gantry-", process, " does not answer (",
                                               status.error_message(),
                                               "); see whether it runs, and try again"));
  }
  return rpc::FromGrpcStatus(status);
}

// Calls `send(context)`, which makes one call; once more when the connection broke under it. Only
// for calls that may be repeated.
template <typename Send>
absl::Status CallTwice(absl::string_view process, absl::Duration timeout,
                       absl::string_view namespace_name, Send send) {
  for (bool again = true;; again = false) {
    grpc::ClientContext context;
    rpc::PrepareCall(context, timeout, namespace_name);
    const grpc::Status status = send(context);
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE && again) continue;
    return PeerStatus(status, process);
  }
}

template <typename Send>
absl::Status CallOnce(absl::string_view process, absl::Duration timeout,
                      absl::string_view namespace_name, Send send) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, timeout, namespace_name);
  return PeerStatus(send(context), process);
}

}  // namespace gantry::engine
