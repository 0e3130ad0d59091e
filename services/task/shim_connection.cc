#include "services/task/shim_connection.h"

#include <utility>

#include "lib/base/request_id.h"
#include "lib/base/status.h"

namespace gantry::task {

absl::StatusOr<std::shared_ptr<ShimConnection>> ShimConnection::Dial(
    const std::string& address, int version, const std::string& ns, Workers& workers,
    std::function<void()> on_close) {
  ASSIGN_OR_RETURN(std::unique_ptr<ttrpc::Client> client,
                   ttrpc::Client::Connect(address, std::move(on_close)));
  return std::shared_ptr<ShimConnection>(
      new ShimConnection(std::move(client), version, ns, workers));
}

ShimConnection::ShimConnection(std::unique_ptr<ttrpc::Client> client, int version,
                               const std::string& ns, Workers& workers)
    : client_(std::move(client)),
      version_(version),
      metadata_({{"containerd-namespace-ttrpc", ns}}),
      workers_(workers) {}

ShimConnection::~ShimConnection() {
  // A client must not be destroyed from one of its own callbacks, and this may be one.
  workers_.Post([client = std::shared_ptr<ttrpc::Client>(std::move(client_))] {});
}

const char* ShimConnection::service() const {
  return version_ == 3 ? "containerd.task.v3.Task" : "containerd.task.v2.Task";
}

ttrpc::Metadata ShimConnection::CallMetadata() const {
  ttrpc::Metadata metadata = metadata_;
  const std::string& id = CurrentRequestId();
  metadata.emplace_back(kRequestIdHeader, id.empty() ? NewRequestId() : id);
  return metadata;
}

void ShimConnection::CallAsync(const std::string& method,
                               const google::protobuf::MessageLite& request, absl::Duration timeout,
                               ttrpc::Answer answer) {
  CallAsync(method, request.SerializeAsString(), timeout, std::move(answer));
}

void ShimConnection::CallAsync(const std::string& method, std::string payload,
                               absl::Duration timeout, ttrpc::Answer answer) {
  client_->CallAsync(service(), method, payload, CallMetadata(), timeout, std::move(answer));
}

absl::StatusOr<std::string> ShimConnection::Call(const std::string& method,
                                                 const google::protobuf::MessageLite& request,
                                                 absl::Duration timeout) {
  const std::string payload = request.SerializeAsString();
  absl::StatusOr<std::string> answer =
      client_->Call(service(), method, payload, CallMetadata(), timeout);
  if (absl::IsUnimplemented(answer.status()) && version_ == 3) {
    // Shims between the versions announce 3 and serve 2; every later call uses what works.
    version_ = 2;
    answer = client_->Call(service(), method, payload, CallMetadata(), timeout);
  }
  return answer;
}

bool ConnectionWasLost(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsCancelled(status);
}

}  // namespace gantry::task
