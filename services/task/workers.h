// A few threads for work that blocks: cleaning up after dead shims, adoption, closing connections.
#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace gantry::task {

// Thread-safe.
class Workers {
 public:
  explicit Workers(int threads);
  ~Workers();  // Runs what was posted, then ends.

  void Post(std::function<void()> work);
  // Returns when everything posted so far, and what that posted, has run.
  void WaitUntilIdle();

 private:
  void Run();

  absl::Mutex mutex_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  int busy_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace gantry::task
