#include "services/image/transfer_service.h"

#include "lib/base/status.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"

namespace gantry::image {

grpc::Status TransferService::Transfer(
    grpc::ServerContext* context,
    const containerd::services::transfer::v1::TransferRequest* request, google::protobuf::Empty*) {
  const auto run = [&]() -> absl::Status {
    Caller caller;
    ASSIGN_OR_RETURN(caller.namespace_name, rpc::RequestNamespace(*context));
    caller.lease = rpc::RequestLease(*context);
    return transfers_.Run(caller, *request, [context] { return context->IsCancelled(); });
  };
  return rpc::ToGrpcStatus(run());
}

}  // namespace gantry::image
