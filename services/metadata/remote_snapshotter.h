// A snapshotter behind a socket that speaks containerd's proxy plugin protocol.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>
#include <vector>

#include "containerd/services/snapshots/v1/snapshots.grpc.pb.h"
#include "services/metadata/snapshotter_backend.h"

namespace gantry::metadata {

// Thread-safe.
class RemoteSnapshotter : public SnapshotterBackend {
 public:
  // `name` is what the snapshotter is called in requests, "overlayfs".
  RemoteSnapshotter(std::string name, std::shared_ptr<grpc::Channel> channel)
      : name_(std::move(name)),
        stub_(containerd::services::snapshots::v1::Snapshots::NewStub(std::move(channel))) {}

  absl::StatusOr<Mounts> Create(const std::string& key, const std::string& parent,
                                const Labels& labels, Kind kind) override;
  absl::StatusOr<Mounts> GetMounts(const std::string& key) override;
  absl::Status Commit(const std::string& name, const std::string& key, const std::string& parent,
                      const Labels& labels) override;
  absl::Status Remove(const std::string& key) override;
  absl::StatusOr<Info> Stat(const std::string& key) override;
  absl::StatusOr<Info> Update(const Info& info, const std::vector<std::string>& mask) override;
  absl::StatusOr<std::vector<Info>> List(const std::vector<std::string>& filters) override;
  absl::StatusOr<Usage> GetUsage(const std::string& key) override;
  absl::Status Cleanup() override;

 private:
  const std::string name_;
  const std::unique_ptr<containerd::services::snapshots::v1::Snapshots::Stub> stub_;
};

}  // namespace gantry::metadata
