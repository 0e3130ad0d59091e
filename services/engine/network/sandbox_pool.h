// Sandboxes made ready before somebody asks, and taken away after nobody waits.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/netlink/address.h"
#include "lib/sys/unique_fd.h"
#include "services/engine/network/sandbox.h"

namespace gantry::network {

// Making a namespace with its interface takes the kernel about a millisecond, taking one away ten
// times that. Both happen on the pool's one thread, so a start and a stop of a container do not
// wait for them. The thread also watches one descriptor for its owner (the firewall's events).
// Thread-safe.
class SandboxPool {
 public:
  struct Hooks {
    // Makes one, on the bridge or with `lo` only. Called on the pool's thread.
    std::function<absl::StatusOr<Sandbox>(bool bridged)> make;
    // Takes these away and frees their addresses. Answers those that could not be taken away, to be
    // tried again after a pause. Called on the pool's thread.
    std::function<std::vector<Sandbox>(std::vector<Sandbox>)> remove;
    // `watched_fd` is readable. Called on the pool's thread.
    std::function<void()> on_event;
    int watched_fd = -1;
  };
  struct Sizes {
    int bridged = 0;
    int bare = 0;
  };

  // Starts the thread and begins to fill. Errors: ResourceExhausted — no descriptor.
  static absl::StatusOr<std::unique_ptr<SandboxPool>> Create(Sizes sizes, Hooks hooks);
  // Finishes what was retired, takes away what is ready, ends the thread. What cannot be taken away
  // is left to the next start.
  ~SandboxPool();
  SandboxPool(const SandboxPool&) = delete;
  SandboxPool& operator=(const SandboxPool&) = delete;

  // One that is ready, or none: nobody waits here.
  std::optional<Sandbox> Take(bool bridged);
  // The ready one with this address, if there is one.
  std::optional<Sandbox> TakeWithAddress(netlink::Ipv4Address ip);

  // Hands one over to be taken away.
  void Retire(Sandbox sandbox);

  // Returns when nothing retired is left to be taken away and nothing more is being made ready, or
  // after `timeout`.
  void Settle(absl::Duration timeout = absl::InfiniteDuration());

  // Stops or resumes filling; with `bridged` 0 the bridge may be missing.
  void Resize(Sizes sizes);

  // The sandboxes that are ready now.
  std::vector<Sandbox> Ready() const;
  size_t retired() const;

 private:
  // What the thread does next.
  enum class Step { kStop, kFillBridged, kFillBare, kRemove, kWait };

  SandboxPool(Sizes sizes, Hooks hooks, sys::UniqueFd wake);
  void Run();
  Step NextStep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Fill(bool bridged);
  void RemoveRetired();
  void WaitForWork();
  int WaitMilliseconds() ABSL_LOCKS_EXCLUDED(mutex_);
  void Wake();
  bool Settled() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Hooks hooks_;
  const sys::UniqueFd wake_;  // An eventfd the thread waits on.

  mutable absl::Mutex mutex_;
  Sizes sizes_ ABSL_GUARDED_BY(mutex_);
  std::deque<Sandbox> bridged_ ABSL_GUARDED_BY(mutex_);
  std::deque<Sandbox> bare_ ABSL_GUARDED_BY(mutex_);
  std::vector<Sandbox> retired_ ABSL_GUARDED_BY(mutex_);
  // Could not be taken away: tried again at `retry_at_`, with a pause that doubles.
  std::vector<Sandbox> refused_ ABSL_GUARDED_BY(mutex_);
  absl::Time retry_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Duration retry_pause_ ABSL_GUARDED_BY(mutex_);
  bool working_ ABSL_GUARDED_BY(mutex_) = false;  // The thread is in one of the hooks.
  // Making failed; not tried again before something was taken or given back, or a second has
  // passed.
  bool fill_paused_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace gantry::network
