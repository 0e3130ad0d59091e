// An image from a source into content store and snapshotter. Layers go side by side: each is
// downloaded, hashed, inflated, hashed again and unpacked at the same time; snapshots are prepared
// without parents and put onto each other, lowest first, when their files are there (the
// snapshotter's `rebase`).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/metrics/registry.h"
#include "lib/oci/image_manifest.h"
#include "services/image/blob_store.h"
#include "services/image/content_source.h"
#include "services/image/metadata.h"
#include "services/image/mount_target.h"
#include "services/image/progress.h"
#include "services/image/single_flight.h"
#include "services/image/unpacker.h"

namespace gantry::image {

struct InstallerOptions {
  std::string snapshotter = "overlayfs";
  int max_parallel_layers = 6;  // Over all pulls.
  // Off for a foreign snapshotter without `rebase`: downloads stay parallel, unpacking does not.
  bool parallel_unpack = true;
  std::string scratch;  // Directory for mounts.
  oci::ImageLimits limits;
};

// Thread-safe.
class Installer {
 public:
  Installer(BlobStore& blobs, Metadata& metadata, Unpacker& unpacker, metrics::Registry& metrics,
            InstallerOptions options);

  struct Request {
    Caller caller;  // With a lease that holds everything until the image record does.
    ContentSource* source = nullptr;
    std::string root_bytes;  // The manifest or index.
    std::string root_media_type;
    oci::Platform platform;
    Progress* progress = nullptr;
    std::function<bool()> cancelled;
  };

  struct Result {
    oci::Descriptor root;
    oci::Descriptor manifest;
    Digest config;
    bool fetched_anything = false;
  };

  // Fetches what is missing, verifies and unpacks it. After an error snapshots of this call are
  // removed; partial downloads stay for the next try, save those with a wrong digest.
  absl::StatusOr<Result> Install(const Request& request);

  // Stores a document as a blob with labels; fine when it is there already (the labels are set).
  absl::Status StoreDocument(const Caller& caller, const std::string& ref, const std::string& bytes,
                             const Digest& digest, const StringMap& labels, bool* fetched);

 private:
  struct Job;
  struct Layer;

  absl::Status ResolveManifest(Job& job);
  absl::Status ReadConfiguration(Job& job);
  absl::Status StoreDocuments(Job& job);
  absl::Status InstallLayers(Job& job);
  void RunLayers(Job& job);
  absl::Status RunLayer(Job& job, Layer& layer);
  absl::Status ObtainLayer(Job& job, Layer& layer);
  absl::Status DownloadLayer(Job& job, Layer& layer, const std::string& backend_id);
  absl::Status Download(Job& job, Layer& layer, Ingest& ingest);
  absl::Status PrepareLayer(Job& job, Layer& layer, const std::string& parent);
  absl::Status UnpackFromBlob(Job& job, Layer& layer);
  absl::Status CheckDiffId(const Layer& layer) const;
  absl::Status CommitLayer(Job& job, Layer& layer);
  absl::Status CommitSnapshot(Job& job, Layer& layer);
  absl::StatusOr<std::vector<std::string>> LowerDirectories(Job& job, const std::string& parent);
  absl::Status MendUnlistedDirectories(Job& job, Layer& layer);
  void DropSnapshot(Job& job, Layer& layer);
  absl::StatusOr<std::string> Document(Job& job, const oci::Descriptor& descriptor, bool manifest);

  class Slot;

  void AbandonIngest(const Job& job, const std::string& ref, const std::string& backend_id);

  BlobStore& blobs_;
  Metadata& metadata_;
  Unpacker& unpacker_;
  const InstallerOptions options_;
  SingleFlight flights_;
  metrics::Counter& pulled_bytes_;
  metrics::Histogram& unpack_seconds_;
  absl::Mutex mutex_;
  int slots_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::image
