// Deletion off the path: a directory is renamed into the trash, which costs microseconds, and
// removed by a thread of its own. What a crash leaves in the trash is removed after the next start.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gantry::snapshotter {

// Thread-safe.
class Trash {
 public:
  // `directory` exists. `on_change`, when set, hears the number of trees that wait.
  explicit Trash(std::string directory, std::function<void(size_t)> on_change = nullptr);
  ~Trash();  // What waits stays for the next start.

  // Takes over everything in the directory. Called once, before Put.
  absl::Status Resume();

  // Moves `path` (same file system) into the trash. After OK it is gone from its place.
  absl::Status Put(const std::string& path);

  // Removes everything, also what failed before, and waits for it.
  // Errors: DeadlineExceeded; otherwise why the last tree could not be removed.
  absl::Status Drain(absl::Duration timeout);

  size_t size() const;

 private:
  void Run();
  void Enqueue(std::string path);

  const std::string directory_;
  const std::function<void(size_t)> on_change_;
  mutable absl::Mutex mutex_;
  std::deque<std::string> queue_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::string> failed_ ABSL_GUARDED_BY(mutex_);
  absl::Status last_error_ ABSL_GUARDED_BY(mutex_);
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace gantry::snapshotter
