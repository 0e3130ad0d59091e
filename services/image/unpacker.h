// Layers into directories, each by a worker process of its own (unpack_worker_main.cc).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/archive/compression.h"
#include "lib/archive/layer_sink.h"
#include "lib/archive/unpack.h"
#include "lib/sys/process.h"
#include "lib/sys/unique_fd.h"

namespace gantry::image {

struct UnpackerOptions {
  std::string program;  // Path of gantry-unpack.
  archive::SinkLimits limits;
  uint64_t max_ratio = 1000;
};

// One layer being unpacked. Destruction kills the worker. Thread-compatible.
class LayerUnpack {
 public:
  // Hands bytes of the layer to the worker, waiting while it is busy. Errors: what the worker said
  // if it has ended; Cancelled.
  absl::Status Write(absl::string_view bytes, const std::function<bool()>& cancelled);

  // No more bytes: waits for the worker and answers its result.
  absl::StatusOr<archive::UnpackResult> Finish(const std::function<bool()>& cancelled);

 private:
  friend class Unpacker;
  LayerUnpack(sys::Child worker, sys::UniqueFd input, sys::UniqueFd report)
      : worker_(std::move(worker)), input_(std::move(input)), report_(std::move(report)) {}

  sys::Child worker_;
  sys::UniqueFd input_;  // None: the worker reads a file by itself.
  sys::UniqueFd report_;
};

// Thread-safe.
class Unpacker {
 public:
  explicit Unpacker(UnpackerOptions options) : options_(std::move(options)) {}

  // Starts a worker for `directory`. It reads from `blob` when that is a descriptor, else from
  // Write.
  absl::StatusOr<std::unique_ptr<LayerUnpack>> Start(
      const sys::UniqueFd& directory, archive::Whiteouts whiteouts,
      std::optional<archive::Compression> compression, const sys::UniqueFd& blob = {});

 private:
  const UnpackerOptions options_;
};

// What the worker may not do itself, lacking CAP_SYS_ADMIN and the layers below: marks opaque
// directories for overlayfs and gives directories that the layer did not list the attributes they
// have below. `lower` are directories of the layers below, newest first; empty for the lowest.
absl::Status FinishOverlayLayer(const sys::UniqueFd& layer, const archive::UnpackResult& result,
                                const std::vector<std::string>& lower);

}  // namespace gantry::image
