// A bounded queue of blocks with one writer and several readers, each of which sees every block.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace gantry::archive {

// Thread-safe: one thread writes, one thread per reader number reads.
class BlockRing {
 public:
  BlockRing(size_t readers, size_t blocks, size_t block_bytes);

  // A free block to fill, waiting for one; null after Cancel.
  char* Reserve();
  size_t block_bytes() const { return block_bytes_; }

  // The block from Reserve has `size` bytes now.
  void Publish(size_t size);

  // No more blocks. Readers get `status` when they have seen all: OK is the end of the stream.
  void Close(absl::Status status);

  // The next block for this reader, who gives back the one before; empty at the end.
  absl::StatusOr<absl::string_view> Next(size_t reader);

  // This reader wants no more blocks and holds nobody up.
  void Leave(size_t reader);

  // Wakes everybody up: the writer stops, readers get `status`.
  void Cancel(absl::Status status);

 private:
  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t block_bytes_;
  std::vector<std::unique_ptr<char[]>> blocks_;
  absl::Mutex mutex_;
  std::vector<size_t> sizes_ ABSL_GUARDED_BY(mutex_);
  size_t written_ ABSL_GUARDED_BY(mutex_) = 0;            // Blocks published.
  std::vector<size_t> released_ ABSL_GUARDED_BY(mutex_);  // Blocks given back, by reader.
  std::vector<bool> holding_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::archive
