// The compressions a layer may have, as streams: gzip by ISA-L, zstd by libzstd, or none.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::archive {

enum class Compression { kNone, kGzip, kZstd };

// "none", "gzip", "zstd".
absl::string_view CompressionName(Compression compression);
absl::StatusOr<Compression> ParseCompression(absl::string_view name);

// What the first bytes of a stream say; four are enough. Anything unknown is kNone.
Compression DetectCompression(absl::string_view first_bytes);

// Undoes a compression. Memory is bounded whatever the bytes say (zstd windows up to 128 MiB).
// Thread-compatible.
class Decompressor {
 public:
  static absl::StatusOr<std::unique_ptr<Decompressor>> Create(Compression compression);
  virtual ~Decompressor() = default;

  // Takes from the front of `*input` (which shrinks) and writes up to `size` bytes to `out`.
  // Answers how many were written; 0 means that all input was taken and more is needed. Errors:
  // DataLoss — the stream is damaged, or something follows its end.
  virtual absl::StatusOr<size_t> Read(absl::string_view* input, char* out, size_t size) = 0;

  // The input has ended. Errors: DataLoss — in the middle of the stream.
  virtual absl::Status Finish() = 0;
};

// Applies a compression. Thread-compatible.
class Compressor {
 public:
  static absl::StatusOr<std::unique_ptr<Compressor>> Create(Compression compression);
  virtual ~Compressor() = default;

  // Appends to `*out` what is ready of the compressed form.
  virtual absl::Status Write(absl::string_view input, std::string* out) = 0;

  // Appends the rest. Nothing may be written afterwards.
  virtual absl::Status Finish(std::string* out) = 0;
};

}  // namespace gantry::archive
