#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gantry::image {

enum class LayerPhase {
  kWaiting = 1,
  kDownloading,
  kVerifying,
  kDownloaded,
  kExtracting,
  kComplete,
  kExists,
};

struct LayerState {
  std::string digest;
  LayerPhase phase = LayerPhase::kWaiting;
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;

  bool operator==(const LayerState& other) const {
    return digest == other.digest && phase == other.phase && done_bytes == other.done_bytes &&
           total_bytes == other.total_bytes;
  }
};

// How far a pull is: written by its threads, read by whoever watches. Thread-safe.
class Progress {
 public:
  void SetLayers(std::vector<LayerState> layers) {
    absl::MutexLock lock(&mutex_);
    layers_ = std::move(layers);
    ++version_;
  }

  void Set(size_t layer, LayerPhase phase, uint64_t done_bytes = 0) {
    absl::MutexLock lock(&mutex_);
    if (layer >= layers_.size()) return;
    layers_[layer].phase = phase;
    layers_[layer].done_bytes = done_bytes;
    ++version_;
  }

  void Finish() {
    absl::MutexLock lock(&mutex_);
    finished_ = true;
    ++version_;
  }

  // Waits until something changed since `*version` or `timeout` is over. True when all is over.
  bool Wait(uint64_t* version, absl::Duration timeout, std::vector<LayerState>* layers) {
    absl::MutexLock lock(&mutex_);
    const auto changed = [this, version]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return version_ != *version; };
    mutex_.AwaitWithTimeout(absl::Condition(&changed), timeout);
    *version = version_;
    *layers = layers_;
    return finished_;
  }

  // As above, only for the end.
  bool WaitFinished(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&finished_), timeout);
  }

 private:
  absl::Mutex mutex_;
  std::vector<LayerState> layers_ ABSL_GUARDED_BY(mutex_);
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 1;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gantry::image
