#include "services/task/metadata_client.h"

#include <grpcpp/client_context.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"

namespace gantry::task {

MetadataClient::MetadataClient(const std::shared_ptr<grpc::Channel>& channel)
    : containers_(containerd::services::containers::v1::Containers::NewStub(channel)),
      events_(containerd::services::events::v1::Events::NewStub(channel)) {}

absl::StatusOr<ContainerRecord> MetadataClient::Get(const std::string& ns, const std::string& id) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kShortCall, ns);
  containerd::services::containers::v1::GetContainerRequest request;
  request.set_id(id);
  containerd::services::containers::v1::GetContainerResponse response;
  const grpc::Status status = containers_->Get(&context, request, &response);
  RETURN_IF_ERROR(Annotate(rpc::FromGrpcStatus(status), absl::StrCat("read container '", id, "'")));
  ContainerRecord record;
  record.runtime = response.container().runtime().name();
  record.options = response.container().runtime().options();
  record.spec = response.container().spec().value();
  return record;
}

EventForwarder::Send MetadataClient::Forwarding() {
  return [events = events_](const containerd::types::Envelope& envelope,
                            std::function<void(absl::Status)> done) {
    struct Call {
      grpc::ClientContext context;
      containerd::services::events::v1::ForwardRequest request;
      google::protobuf::Empty response;
    };
    auto call = std::make_shared<Call>();
    rpc::PrepareCall(call->context, rpc::kShortCall, envelope.namespace_());
    *call->request.mutable_envelope() = envelope;
    events->async()->Forward(
        &call->context, &call->request, &call->response,
        [call, done = std::move(done)](grpc::Status status) { done(rpc::FromGrpcStatus(status)); });
  };
}

}  // namespace gantry::task
