// One thread, one epoll: descriptors, timers and postponed calls.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lib/sys/unique_fd.h"

namespace gantry::sys {

// Calls back on the thread that runs it. Descriptors are borrowed: Remove() before closing one. A
// callback may add and remove anything, itself included; what was removed is not called again, even
// when its event was already fetched. An idle loop sleeps in the kernel without a timeout.
//
// Single-threaded.
class EventLoop {
 public:
  using Callback = std::function<void(uint32_t events)>;  // EPOLLIN, EPOLLHUP …
  using Watch = uint64_t;  // Names one registration; never reused, 0 is none.
  using Timer = uint64_t;

  static absl::StatusOr<std::unique_ptr<EventLoop>> Create();

  // `events` as in epoll_ctl(2), level-triggered. Errors: FailedPrecondition — a file that cannot
  // be waited for (a regular file); AlreadyExists — this descriptor is watched.
  absl::StatusOr<Watch> Add(int fd, uint32_t events, Callback callback);
  absl::Status Modify(Watch watch, uint32_t events);
  void Remove(Watch watch);  // Fine with 0 and with what is gone.

  // Calls `callback` once, not before `delay`.
  Timer After(absl::Duration delay, std::function<void()> callback);
  void Cancel(Timer timer);

  // Calls `callback` after the events at hand, before sleeping again.
  void Post(std::function<void()> callback);

  // Until Stop(). Errors: what epoll_wait said.
  absl::Status Run();
  // One round: waits for at most `timeout`, then calls back.
  absl::Status RunOnce(absl::Duration timeout = absl::InfiniteDuration());
  void Stop() { stopped_ = true; }

 private:
  struct Slot {
    uint32_t generation = 0;
    int fd = -1;
    std::unique_ptr<Callback> callback;
  };
  struct Timing {
    Timer id;
    int64_t due_ns;
    std::function<void()> callback;
  };

  explicit EventLoop(UniqueFd epoll) : epoll_(std::move(epoll)) {}
  Slot* Find(Watch watch);
  int TimeoutMillis(absl::Duration limit) const;
  void RunTimers();
  void RunPosted();

  UniqueFd epoll_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  // Callbacks removed while they may be running; freed between rounds.
  std::vector<std::unique_ptr<Callback>> removed_;
  std::vector<Timing> timers_;  // Few; searched linearly.
  std::vector<std::function<void()>> posted_;
  Timer next_timer_ = 1;
  bool stopped_ = false;
};

// O_NONBLOCK, as descriptors of a loop want it.
absl::Status SetNonBlocking(const UniqueFd& fd);

// CLOCK_MONOTONIC in nanoseconds.
int64_t MonotonicNanos();

}  // namespace gantry::sys
