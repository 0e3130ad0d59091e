// Layers between blobs and mounts, for clients that unpack and commit by themselves (ctr,
// buildkit).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "containerd/types/types.pb.h"
#include "services/image/blob_store.h"
#include "services/image/metadata.h"
#include "services/image/unpacker.h"

namespace gantry::image {

// Thread-safe.
class Differ {
 public:
  using Mounts = std::vector<containerd::types::Mount>;

  Differ(BlobStore& blobs, Metadata& metadata, Unpacker& unpacker, std::string scratch)
      : blobs_(blobs), metadata_(metadata), unpacker_(unpacker), scratch_(std::move(scratch)) {}

  // Unpacks the layer onto the mounts; answers the descriptor of its tar. Errors: Unimplemented —
  // an unknown media type; NotFound — no such blob.
  absl::StatusOr<containerd::types::Descriptor> Apply(const Caller& caller,
                                                      const containerd::types::Descriptor& layer,
                                                      const Mounts& mounts, bool sync,
                                                      const std::function<bool()>& cancelled);

  struct Request {
    Mounts left;
    Mounts right;
    std::string media_type;  // Empty: OCI's, gzip.
    std::string ref;         // Empty: one of our own.
    StringMap labels;
    std::optional<absl::Time> latest_time;
  };

  // Writes what makes `left` into `right` as a layer blob.
  absl::StatusOr<containerd::types::Descriptor> Diff(const Caller& caller, const Request& request,
                                                     const std::function<bool()>& cancelled);

 private:
  absl::Status Write(const Request& request, const std::function<absl::Status(absl::string_view)>&);

  BlobStore& blobs_;
  Metadata& metadata_;
  Unpacker& unpacker_;
  const std::string scratch_;
};

}  // namespace gantry::image
