// The file of checkpoints: which state of data.mdb is known to be whole on disk.
//
// A checkpoint is an epoch number and a copy of LMDB's two meta pages, taken between two commits.
// Once data.mdb was synced after that moment, writing the copy back brings exactly that state back,
// however the pages written since may have reached the disk. Two slots are written in turn, in
// place, so that a torn write loses the newer one only and no disk space is needed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/sys/unique_fd.h"

namespace gantry::metadata {

struct Checkpoint {
  uint64_t epoch = 0;
  std::string meta_pages;
};

// Thread-compatible.
class CheckpointFile {
 public:
  // Opens or makes the file. Errors: ResourceExhausted.
  static absl::StatusOr<CheckpointFile> Open(const std::string& path);

  CheckpointFile(CheckpointFile&&) = default;
  CheckpointFile& operator=(CheckpointFile&&) = default;

  // The newest whole checkpoint; nullopt when none was ever written. Errors: DataLoss — slots were
  // written, but none is whole.
  absl::StatusOr<std::optional<Checkpoint>> Newest() const;

  // Durable once OK.
  absl::Status Write(const Checkpoint& checkpoint);

 private:
  explicit CheckpointFile(sys::UniqueFd file) : file_(std::move(file)) {}
  sys::UniqueFd file_;
};

}  // namespace gantry::metadata
