// The children of the shim: reaped in one place.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/process.h"
#include "lib/sys/unique_fd.h"

namespace gantry::shim {

struct ChildExit {
  sys::ExitStatus status;
  absl::Time time;
};

// Reaps every child, those re-parented to us included (the shim is a subreaper), and tells who
// watches it. While a foreign OCI runtime is at work, children that nobody watches yet are
// remembered: its container's init may have ended before we learned its pid. Single-threaded.
class Reaper {
 public:
  using Callback = std::function<void(const ChildExit& exit)>;

  // Blocks SIGCHLD in this process and becomes a subreaper.
  static absl::StatusOr<std::unique_ptr<Reaper>> Create(sys::EventLoop& loop);
  ~Reaper();

  // `callback` runs once, from the loop (or from a later ReapNow), never from here; also when the
  // child had ended before.
  void Watch(pid_t pid, Callback callback);
  void Forget(pid_t pid) { watched_.erase(pid); }

  // Counted: children that nobody watches are remembered while at least one holder is there.
  void HoldUnknown() { ++holders_; }
  void ReleaseUnknown();

  // A logger or another servant: may finish what it does, is asked to end after `patience`, and is
  // killed twelve seconds later.
  void EndGently(pid_t pid, sys::UniqueFd pidfd, absl::Duration patience);

  void ReapNow();

 private:
  explicit Reaper(sys::EventLoop& loop) : loop_(loop) {}

  sys::EventLoop& loop_;
  sys::UniqueFd signals_;
  sys::EventLoop::Watch watch_ = 0;
  std::map<pid_t, Callback> watched_;
  std::map<pid_t, ChildExit> unknown_;
  int holders_ = 0;
};

}  // namespace gantry::shim
