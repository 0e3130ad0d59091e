// A layer blob into a directory, as a pipeline of three threads: inflate ∥ SHA-256 of the tar ∥
// write the files. The stream is the hostile part, so this runs in the unpack worker.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "lib/archive/compression.h"
#include "lib/archive/layer_sink.h"
#include "lib/base/digest.h"
#include "lib/sys/unique_fd.h"

namespace gantry::archive {

struct UnpackOptions {
  std::optional<Compression> compression;  // None: what the first bytes say.
  Whiteouts whiteouts = Whiteouts::kOverlay;
  SinkLimits limits;
  // Of the tar stream, file contents and headers together.
  uint64_t max_tar_bytes = uint64_t{64} << 30;
  // Tar bytes for each compressed byte, beyond the first 256 MiB of tar: stops bombs.
  uint64_t max_ratio = 1000;
};

struct UnpackResult {
  Digest diff_id;  // Of the tar, padding at its end included.
  uint64_t tar_bytes = 0;
  uint64_t file_bytes = 0;
  uint64_t entries = 0;
  std::set<std::string> implicit_directories;  // See LayerSink.
  std::set<std::string> opaque_directories;
};

// Fills `buffer`; answers how many bytes, 0 at the end.
using ByteSource = std::function<absl::StatusOr<size_t>(char* buffer, size_t size)>;

// Reads from a descriptor.
ByteSource FdSource(int fd);

// Unpacks below `root`. After an error files may be left there: the caller throws the directory
// away. Errors: DataLoss — the compressed stream is damaged; InvalidArgument — an entry breaks a
// rule; ResourceExhausted — a limit, or the disk is full; whatever `source` answered.
absl::StatusOr<UnpackResult> Unpack(const ByteSource& source, sys::UniqueFd root,
                                    const UnpackOptions& options);

}  // namespace gantry::archive
