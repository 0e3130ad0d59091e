// Threads for work that blocks (calls to other processes, mounts) and that no request waits for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gantry::engine {

// How long to wait before attempt number `attempt` + 1: 250 ms, doubled each time, at most 30 s.
absl::Duration RetryDelay(int attempt);

// An elastic pool: threads are made when work waits, up to a limit, and leave after being idle.
// Work given to it must end by itself (calls have deadlines), since Stop waits for what has begun.
// One further thread keeps the delayed work. Work goes on with the request id of whoever gave it.
// Thread-safe.
class Executor {
 public:
  using Work = std::function<void()>;
  using Timer = uint64_t;  // Never 0.

  explicit Executor(size_t max_threads = 64);
  ~Executor();  // As Stop.
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Runs `work` on a thread of the pool. After Stop it is dropped.
  void Run(Work work);

  // Runs `work` on a thread of the pool, not before `delay`.
  Timer RunAfter(absl::Duration delay, Work work);

  // Whether the delayed work will not run any more because of this call.
  bool Cancel(Timer timer);

  // Drops what has not begun, and waits for what has.
  void Stop();

 private:
  void Worker();
  void TimerLoop();
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopped_ || !queue_.empty(); }

  const size_t max_threads_;
  absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  size_t threads_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t idle_ ABSL_GUARDED_BY(mutex_) = 0;
  Timer last_timer_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Work> queue_ ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<absl::Time, Timer>, Work> delayed_ ABSL_GUARDED_BY(mutex_);
  absl::CondVar delayed_changed_;
  std::thread timer_thread_;
};

}  // namespace gantry::engine
