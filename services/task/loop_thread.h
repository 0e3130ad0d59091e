// An event loop on a thread of its own.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/unique_fd.h"

namespace gantry::task {

class LoopThread {
 public:
  static absl::StatusOr<std::unique_ptr<LoopThread>> Start();
  ~LoopThread();  // Ends the loop; what was posted and has not run is dropped.

  // Runs `work` on the thread. Thread-safe.
  void Post(std::function<void()> work);

  // Runs `work` on the thread and waits for it. Must not be called on the thread.
  void Do(const std::function<void()>& work);

  // Only on the thread.
  sys::EventLoop& loop() { return *loop_; }

 private:
  LoopThread(std::unique_ptr<sys::EventLoop> loop, sys::UniqueFd wake)
      : loop_(std::move(loop)), wake_(std::move(wake)) {}
  void RunPosted();

  std::unique_ptr<sys::EventLoop> loop_;
  sys::UniqueFd wake_;
  absl::Mutex mutex_;
  std::vector<std::function<void()>> posted_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace gantry::task
