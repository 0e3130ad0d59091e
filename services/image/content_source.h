// Where the bytes of an image come from: a registry, or an archive that was sent.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/base/digest.h"
#include "services/image/metadata.h"

namespace gantry::image {

// Thread-safe.
class ContentSource {
 public:
  virtual ~ContentSource() = default;

  // A manifest, index or configuration by digest; the bytes are checked. `is_manifest` tells
  // registries, which keep the two apart.
  virtual absl::StatusOr<std::string> FetchDocument(const Digest& digest, uint64_t size_bytes,
                                                    bool is_manifest) = 0;

  // Bytes from `offset` to `size_bytes`, in order. What they add up to is checked by the caller.
  virtual absl::Status FetchBlob(const Digest& digest, uint64_t offset, uint64_t size_bytes,
                                 const std::function<absl::Status(absl::string_view)>& sink) = 0;

  // Labels for blobs from here.
  virtual StringMap Labels() const = 0;
};

}  // namespace gantry::image
