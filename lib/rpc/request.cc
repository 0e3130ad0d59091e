#include "lib/rpc/request.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "lib/base/identifier.h"
#include "lib/base/request_id.h"
#include "lib/base/status.h"
#include "lib/rpc/request_id.h"

namespace gantry::rpc {

std::string RequestHeader(const grpc::ServerContextBase& context, absl::string_view name) {
  const auto& headers = context.client_metadata();
  auto found = headers.find(grpc::string_ref(name.data(), name.size()));
  if (found == headers.end()) return "";
  return std::string(found->second.data(), found->second.size());
}

std::string RequestId(const grpc::ServerContextBase& context) {
  std::string id = RequestHeader(context, kRequestIdHeader);
  return IsRequestId(id) ? id : NewRequestId();
}

absl::StatusOr<std::string> RequestNamespace(const grpc::ServerContextBase& context) {
  std::string name = RequestHeader(context, kNamespaceHeader);
  if (name.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("namespace is required: send the header '", kNamespaceHeader, "'"));
  }
  RETURN_IF_ERROR(CheckIdentifier("namespace", name));
  return name;
}

std::string RequestLease(const grpc::ServerContextBase& context) {
  return RequestHeader(context, kLeaseHeader);
}

void PrepareCall(grpc::ClientContext& context, absl::Duration timeout,
                 absl::string_view namespace_name, absl::string_view lease) {
  // A process that is being started again answers a moment later; the deadline bounds the wait.
  context.set_wait_for_ready(true);
  if (timeout != absl::InfiniteDuration()) {
    context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(timeout));
  }
  const std::string& request_id = CurrentRequestId();
  context.AddMetadata(kRequestIdHeader, request_id.empty() ? NewRequestId() : request_id);
  if (!namespace_name.empty()) {
    context.AddMetadata(kNamespaceHeader, std::string(namespace_name));
  }
  if (!lease.empty()) context.AddMetadata(kLeaseHeader, std::string(lease));
}

}  // namespace gantry::rpc
