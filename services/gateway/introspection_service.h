// containerd.services.introspection.v1.Introspection: the inventory clients look for before they
// act (contracts/containerd/README.md 3.10).
#pragma once

#include <string>

#include "containerd/services/introspection/v1/introspection.grpc.pb.h"

namespace gantry::gateway {

// Thread-safe.
class IntrospectionService final
    : public containerd::services::introspection::v1::Introspection::Service {
 public:
  // `uuid` identifies this installation; `snapshotter_root` is exported as the overlay root.
  IntrospectionService(std::string uuid, std::string snapshotter_root)
      : uuid_(std::move(uuid)), snapshotter_root_(std::move(snapshotter_root)) {}

  grpc::Status Plugins(grpc::ServerContext*,
                       const containerd::services::introspection::v1::PluginsRequest* request,
                       containerd::services::introspection::v1::PluginsResponse* response) override;
  grpc::Status Server(grpc::ServerContext*, const google::protobuf::Empty*,
                      containerd::services::introspection::v1::ServerResponse* response) override;
  grpc::Status PluginInfo(
      grpc::ServerContext*,
      const containerd::services::introspection::v1::PluginInfoRequest* request,
      containerd::services::introspection::v1::PluginInfoResponse* response) override;

 private:
  const std::string uuid_;
  const std::string snapshotter_root_;
};

}  // namespace gantry::gateway
