// gantry-metadata as the task process uses it: container records in, events out.
#pragma once

#include <grpcpp/channel.h>

#include <memory>

#include "containerd/services/containers/v1/containers.grpc.pb.h"
#include "containerd/services/events/v1/events.grpc.pb.h"
#include "services/task/container_source.h"
#include "services/task/event_forwarder.h"

namespace gantry::task {

// Thread-safe.
class MetadataClient final : public ContainerSource {
 public:
  explicit MetadataClient(const std::shared_ptr<grpc::Channel>& channel);

  absl::StatusOr<ContainerRecord> Get(const std::string& ns, const std::string& id) override;

  // For EventForwarder. The function may outlive the client.
  EventForwarder::Send Forwarding();

 private:
  std::unique_ptr<containerd::services::containers::v1::Containers::Stub> containers_;
  // Shared with calls under way, which may end after this object.
  std::shared_ptr<containerd::services::events::v1::Events::Stub> events_;
};

}  // namespace gantry::task
