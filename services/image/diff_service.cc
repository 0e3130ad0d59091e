#include "services/image/diff_service.h"

#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"

namespace gantry::image {
namespace {

absl::StatusOr<Caller> CallerOf(const grpc::ServerContext& context) {
  Caller caller;
  ASSIGN_OR_RETURN(caller.namespace_name, rpc::RequestNamespace(context));
  caller.lease = rpc::RequestLease(context);
  return caller;
}

}  // namespace

grpc::Status DiffService::Apply(grpc::ServerContext* context,
                                const containerd::services::diff::v1::ApplyRequest* request,
                                containerd::services::diff::v1::ApplyResponse* response) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Caller caller, CallerOf(*context));
    const Differ::Mounts mounts(request->mounts().begin(), request->mounts().end());
    ASSIGN_OR_RETURN(*response->mutable_applied(),
                     differ_.Apply(caller, request->diff(), mounts, request->sync_fs(),
                                   [context] { return context->IsCancelled(); }));
    return absl::OkStatus();
  };
  return rpc::ToGrpcStatus(run());
}

grpc::Status DiffService::Diff(grpc::ServerContext* context,
                               const containerd::services::diff::v1::DiffRequest* request,
                               containerd::services::diff::v1::DiffResponse* response) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Caller caller, CallerOf(*context));
    Differ::Request diff;
    diff.left.assign(request->left().begin(), request->left().end());
    diff.right.assign(request->right().begin(), request->right().end());
    diff.media_type = request->media_type();
    diff.ref = request->ref();
    for (const auto& [key, value] : request->labels()) {
      RETURN_IF_ERROR(CheckLabel(key, value));
      diff.labels[key] = value;
    }
    if (request->has_source_date_epoch()) {
      diff.latest_time = absl::FromUnixSeconds(request->source_date_epoch().seconds());
    }
    ASSIGN_OR_RETURN(*response->mutable_diff(),
                     differ_.Diff(caller, diff, [context] { return context->IsCancelled(); }));
    return absl::OkStatus();
  };
  return rpc::ToGrpcStatus(run());
}

}  // namespace gantry::image
