// What gantry-image asks gantry-metadata: a client of its services, one function per call.
#pragma once

#include <grpcpp/channel.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "containerd/services/containers/v1/containers.pb.h"
#include "containerd/services/images/v1/images.pb.h"
#include "containerd/services/leases/v1/leases.pb.h"
#include "containerd/services/snapshots/v1/snapshots.pb.h"
#include "gantry/metadata/v1/metadata.pb.h"
#include "lib/base/digest.h"

namespace gantry::image {

// In whose name a call is made.
struct Caller {
  std::string namespace_name;
  std::string lease;  // Empty: none.
};

using StringMap = std::map<std::string, std::string>;

// Statuses are metadata's; Unavailable when it cannot be reached. Thread-safe.
class Metadata {
 public:
  explicit Metadata(std::shared_ptr<grpc::Channel> channel);
  ~Metadata();

  // Blobs and ingests (gantry.metadata.v1.Blobs).
  absl::StatusOr<metadata::v1::Blob> GetBlob(const Caller& caller, const Digest& digest);
  absl::StatusOr<std::vector<metadata::v1::Blob>> ListBlobs(
      const Caller& caller, const std::vector<std::string>& filters);
  // Hands every blob over as it comes; an error of `consume` ends the call.
  absl::Status ListBlobs(const Caller& caller, const std::vector<std::string>& filters,
                         const std::function<absl::Status(const metadata::v1::Blob&)>& consume);
  absl::StatusOr<metadata::v1::Blob> UpdateBlob(const Caller& caller, const Digest& digest,
                                                const StringMap& labels,
                                                const std::vector<std::string>& paths);
  absl::Status DeleteBlob(const Caller& caller, const Digest& digest);
  absl::StatusOr<metadata::v1::BeginIngestResponse> BeginIngest(const Caller& caller,
                                                                const std::string& ref,
                                                                const std::string& expected,
                                                                uint64_t total_bytes);
  absl::StatusOr<metadata::v1::Blob> CommitIngest(const Caller& caller, const std::string& ref,
                                                  const Digest& digest, uint64_t size_bytes,
                                                  const StringMap& labels);
  // The backend id of the ingest that was dropped.
  absl::StatusOr<std::string> AbortIngest(const Caller& caller, const std::string& ref);
  absl::StatusOr<std::vector<metadata::v1::Ingest>> ListIngests(const Caller& caller,
                                                                bool all_namespaces);

  // Images.
  absl::StatusOr<containerd::services::images::v1::Image> GetImage(const Caller& caller,
                                                                   const std::string& name);
  absl::StatusOr<std::vector<containerd::services::images::v1::Image>> ListImages(
      const Caller& caller);
  // Creates the image, or points an existing one to the target.
  absl::Status PutImage(const Caller& caller, const std::string& name,
                        const containerd::types::Descriptor& target, const StringMap& labels);
  absl::Status DeleteImage(const Caller& caller, const std::string& name, bool sync);

  absl::StatusOr<std::vector<containerd::services::containers::v1::Container>> ListContainers(
      const Caller& caller);
  absl::StatusOr<std::vector<std::string>> ListNamespaces();

  // Leases. The id of the new one.
  absl::StatusOr<std::string> CreateLease(const Caller& caller, const std::string& id,
                                          const StringMap& labels);
  // `collect`: answers when what the lease alone held is collected.
  absl::Status DeleteLease(const Caller& caller, const std::string& id, bool collect = false);
  absl::StatusOr<std::vector<containerd::services::leases::v1::Lease>> ListLeases(
      const Caller& caller, const std::vector<std::string>& filters);
  absl::Status AddToLease(const Caller& caller, const std::string& type, const std::string& id);

  // Snapshots.
  using Mounts = std::vector<containerd::types::Mount>;
  absl::StatusOr<Mounts> PrepareSnapshot(const Caller& caller, const std::string& snapshotter,
                                         const std::string& key, const std::string& parent,
                                         const StringMap& labels);
  absl::StatusOr<Mounts> ViewSnapshot(const Caller& caller, const std::string& snapshotter,
                                      const std::string& key, const std::string& parent);
  absl::Status CommitSnapshot(const Caller& caller, const std::string& snapshotter,
                              const std::string& name, const std::string& key,
                              const std::string& parent, const StringMap& labels);
  absl::Status RemoveSnapshot(const Caller& caller, const std::string& snapshotter,
                              const std::string& key);
  absl::StatusOr<containerd::services::snapshots::v1::Info> StatSnapshot(
      const Caller& caller, const std::string& snapshotter, const std::string& key);
  absl::StatusOr<uint64_t> SnapshotBytes(const Caller& caller, const std::string& snapshotter,
                                         const std::string& key);

  // Garbage: what metadata has no record of, at first of what is known here, then as it happens.
  struct GarbageWatch {
    std::vector<Digest> known_blobs;
    std::vector<std::string> known_ingests;  // Backend ids.
    std::function<void(const Digest&)> on_blob;
    std::function<void(const std::string& backend_id)> on_ingest;
    // Called at the beginning with what ends the watch from another thread, at its end with null.
    std::function<void(std::function<void()> stop)> on_stop;
  };
  // Returns when the call breaks or is stopped, which is Cancelled; OK after `length`.
  absl::Status WatchGarbage(const GarbageWatch& watch, absl::Duration length);
  absl::Status ClaimBlob(const Digest& digest);
  absl::Status ReleaseBlob(const Digest& digest, bool deleted);

 private:
  struct Stubs;
  std::unique_ptr<Stubs> stubs_;
};

}  // namespace gantry::image
