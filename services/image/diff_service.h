#pragma once

#include "containerd/services/diff/v1/diff.grpc.pb.h"
#include "services/image/differ.h"

namespace gantry::image {

// containerd.services.diff.v1.Diff. Thread-safe.
class DiffService final : public containerd::services::diff::v1::Diff::Service {
 public:
  explicit DiffService(Differ& differ) : differ_(differ) {}

  grpc::Status Apply(grpc::ServerContext* context,
                     const containerd::services::diff::v1::ApplyRequest* request,
                     containerd::services::diff::v1::ApplyResponse* response) override;
  grpc::Status Diff(grpc::ServerContext* context,
                    const containerd::services::diff::v1::DiffRequest* request,
                    containerd::services::diff::v1::DiffResponse* response) override;

 private:
  Differ& differ_;
};

}  // namespace gantry::image
