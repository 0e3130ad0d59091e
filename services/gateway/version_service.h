// containerd.services.version.v1.Version: a version clients of containerd can compare.
#pragma once

#include "containerd/services/version/v1/version.grpc.pb.h"

namespace gantry::gateway {

// Thread-safe.
class VersionService final : public containerd::services::version::v1::Version::Service {
 public:
  grpc::Status Version(grpc::ServerContext*, const google::protobuf::Empty*,
                       containerd::services::version::v1::VersionResponse* response) override;
};

}  // namespace gantry::gateway
