// Makes fresh records durable a moment after their calls were answered.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gantry::snapshotter {

// Collects files for kBatch, then syncs them and their directories together: one journal commit for
// a burst of Prepares, none of which waited for it. Thread-safe.
class RecordSyncer {
 public:
  static constexpr absl::Duration kBatch = absl::Seconds(1);

  // `on_failure` hears of an fsync that failed, after which nothing about the disk is certain.
  RecordSyncer(std::string root, std::function<void(const absl::Status&)> on_failure);
  ~RecordSyncer();  // Syncs what waits.

  // `file` was written now; it may vanish before it is synced.
  void Add(std::string file);

 private:
  void Run();
  absl::Status SyncBatch(const std::vector<std::string>& files);

  const std::string root_;
  const std::function<void(const absl::Status&)> on_failure_;
  absl::Mutex mutex_;
  std::vector<std::string> files_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace gantry::snapshotter
