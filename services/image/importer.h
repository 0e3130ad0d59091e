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

  struct Request {
    std::string namespace_name;
    oci::Platform platform;
    StringMap labels;  // Of the records.

    // For an image that the archive does not name; empty: its id.
    std::string name;
    // For one that the archive gives only a tag: "prefix:tag". Empty: as without a name.
    std::string prefix;
    bool add_digest = false;         // Record "prefix@digest" too…
    bool skip_named_digest = false;  // …only of images without another name.
  };

  // Reads an archive to its end (`next` answers a piece, empty at the end) and installs its images.
  // Answers the names recorded.
  // Errors: InvalidArgument — not such an archive; NotFound — not for this platform; DataLoss.
  absl::StatusOr<std::vector<std::string>> Import(
      const Request& request, const std::function<absl::StatusOr<absl::string_view>()>& next,
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
