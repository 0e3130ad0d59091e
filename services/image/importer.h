// Images from archives that are sent: OCI layouts and what `docker save` writes, as tar, gzip or
// zstd.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/oci/image_manifest.h"
#include "services/image/installer.h"
#include "services/image/metadata.h"
#include "services/image/unpacker.h"

namespace gantry::image {

// Thread-safe.
class Importer {
 public:
  // `spool` is a directory of our own for archives being read; what a killed process left there is
  // removed by Clean.
  Importer(Installer& installer, Metadata& metadata, Unpacker& unpacker, std::string spool,
           oci::ImageLimits limits);

  absl::Status Clean();

  // Reads an archive to its end (`next` answers a piece, empty at the end) and installs its images.
  // Answers the names recorded; an image without one is recorded under its id.
  // Errors: InvalidArgument — not such an archive; NotFound — not for this platform; DataLoss.
  absl::StatusOr<std::vector<std::string>> Import(
      const std::string& namespace_name, const oci::Platform& platform,
      const std::function<absl::StatusOr<absl::string_view>()>& next,
      const std::function<bool()>& cancelled);

 private:
  absl::Status Spool(const std::string& directory,
                     const std::function<absl::StatusOr<absl::string_view>()>& next,
                     const std::function<bool()>& cancelled);

  Installer& installer_;
  Metadata& metadata_;
  Unpacker& unpacker_;
  const std::string spool_;
  const oci::ImageLimits limits_;
};

}  // namespace gantry::image
