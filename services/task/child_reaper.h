// Watches processes that end by themselves, without a thread waiting for each; reaps those that are
// our children.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/process.h"
#include "services/task/loop_thread.h"

namespace gantry::task {

// Thread-safe. Lives on `loop`, which outlives it.
class ChildReaper {
 public:
  explicit ChildReaper(LoopThread& loop) : loop_(loop) {}
  ~ChildReaper();  // Children that still run are left alone.

  // Reaps `child` when it ends and kills it after `patience`; then calls `done` on the loop's
  // thread. `name` is for the log.
  void Take(sys::Child child, const std::string& name, absl::Duration patience,
            std::function<void()> done);
  // The same for a process that is somebody else's child.
  void Take(sys::UniqueFd pidfd, const std::string& name, absl::Duration patience,
            std::function<void()> done);

 private:
  struct Waiting {
    sys::Child child;
    sys::UniqueFd pidfd;  // When it is not our child.
    std::string name;
    sys::EventLoop::Watch watch = 0;
    sys::EventLoop::Timer timer = 0;
    std::function<void()> done;
  };
  void Watch(std::shared_ptr<Waiting> taken, absl::Duration patience);
  void Finish(uint64_t id, bool kill);

  LoopThread& loop_;
  // Only on the loop's thread.
  std::map<uint64_t, Waiting> waiting_;
  uint64_t next_id_ = 1;
};

}  // namespace gantry::task
