// Images as people mean them: what metadata's records and the stored documents say together.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "gantry/image/v1/image.pb.h"
#include "lib/oci/image_manifest.h"
#include "services/image/blob_store.h"
#include "services/image/metadata.h"

namespace gantry::image {

// Thread-safe.
class Catalog {
 public:
  Catalog(BlobStore& blobs, Metadata& metadata, std::string snapshotter, oci::ImageLimits limits);

  // By name as typed, by id or its beginning (at least 1 digit), or by name@digest.
  // Errors: NotFound; FailedPrecondition — the beginning of several ids.
  absl::StatusOr<v1::ImageDetails> Inspect(const std::string& namespace_name,
                                           const std::string& reference);

  // All images, newest first; see ListImagesRequest.
  absl::StatusOr<std::vector<v1::ImageDetails>> List(const std::string& namespace_name,
                                                     const std::string& pattern);

  // The new name. Errors: NotFound; InvalidArgument.
  absl::StatusOr<std::string> Tag(const std::string& namespace_name, const std::string& source,
                                  const std::string& target);

  // As RemoveImageRequest says. Errors: NotFound; FailedPrecondition — in use, or of several names.
  absl::StatusOr<v1::RemoveImageResponse> Remove(const std::string& namespace_name,
                                                 const std::string& reference, bool force,
                                                 bool keep_image = false);

 private:
  using Record = containerd::services::images::v1::Image;

  // What does not change for a manifest or index digest on this machine.
  struct Known {
    oci::Descriptor manifest;
    oci::ImageConfiguration configuration;
    Digest id;
    Digest chain_id;
    std::vector<Digest> chain_ids;
  };

  absl::StatusOr<std::shared_ptr<const Known>> Learn(const Record& record);
  absl::StatusOr<std::vector<v1::ImageDetails>> Collect(const std::string& namespace_name);
  v1::ImageDetails Describe(const std::string& namespace_name, const Known& known,
                            const std::vector<const Record*>& records);
  uint64_t UnpackedBytes(const std::string& namespace_name, const Known& known, bool* unpacked);
  absl::Status CheckUnused(const std::string& namespace_name, const v1::ImageDetails& image);

  BlobStore& blobs_;
  Metadata& metadata_;
  const std::string snapshotter_;
  const oci::ImageLimits limits_;
  absl::Mutex mutex_;
  // Shared with those who are reading while an entry is dropped.
  absl::flat_hash_map<std::string, std::shared_ptr<const Known>> known_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, uint64_t> layer_bytes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::image
