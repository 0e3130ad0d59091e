// Notices when the kernel kills processes of a container for lack of memory.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "lib/cgroup/cgroup.h"
#include "lib/sys/event_loop.h"

namespace gantry::shim {

// Watches one cgroup until it is gone (cgroup v1: an eventfd, v2: inotify; lib/cgroup).
// Single-threaded.
class OomMonitor {
 public:
  // `on_kill` is called once per growth of the kernel's counter.
  OomMonitor(sys::EventLoop& loop, std::function<void()> on_kill)
      : loop_(loop), on_kill_(std::move(on_kill)) {}
  ~OomMonitor();
  OomMonitor(const OomMonitor&) = delete;
  OomMonitor& operator=(const OomMonitor&) = delete;

  // A container without a memory controller runs as well; it is just not watched.
  void Begin(const cgroup::Cgroup& cgroup);
  // Looks now, without waiting for the loop: the event of a kill comes before the exit it caused.
  void Look();
  uint64_t kills() const { return kills_; }

 private:
  sys::EventLoop& loop_;
  const std::function<void()> on_kill_;
  std::optional<cgroup::OomWatch> watch_;
  sys::EventLoop::Watch event_ = 0;
  uint64_t kills_ = 0;
};

}  // namespace gantry::shim
