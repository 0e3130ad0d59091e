// Images as an archive: an OCI layout, with the list that `docker load` reads beside it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "lib/oci/image_manifest.h"
#include "services/image/blob_store.h"
#include "services/image/metadata.h"

namespace gantry::image {

// Thread-safe.
class Exporter {
 public:
  Exporter(BlobStore& blobs, Metadata& metadata, oci::ImageLimits limits)
      : blobs_(blobs), metadata_(metadata), limits_(limits) {}

  struct Request {
    Caller caller;
    std::vector<std::string> names;        // As recorded.
    std::vector<oci::Platform> platforms;  // Empty: whatever of an image is here.
    bool all_platforms = false;            // All that its index names, here or not an error.
    bool docker_list = true;               // manifest.json
    bool skip_non_distributable = false;   // Leave out layers that may not be passed on.
  };

  // Writes a tar of the same bytes for the same images.
  // Errors: NotFound — no such image, or a part of it is not here; what `output` says.
  absl::Status Export(const Request& request,
                      const std::function<absl::Status(absl::string_view)>& output,
                      const std::function<bool()>& cancelled);

 private:
  struct Archive;

  absl::Status Collect(const Request& request, const std::string& name, Archive& archive);
  absl::Status CollectIndex(const Request& request, const std::string& bytes, int depth,
                            Archive& archive);
  absl::Status CollectManifest(const Request& request, const oci::Descriptor& descriptor,
                               const std::string& bytes, Archive& archive);
  absl::StatusOr<std::string> Document(const Request& request, const oci::Descriptor& descriptor);

  BlobStore& blobs_;
  Metadata& metadata_;
  const oci::ImageLimits limits_;
};

}  // namespace gantry::image
