// Carries events of shims to gantry-metadata: in order per container, at least once, exits always.
//
// A shim awaits our answer to one event before it sends the next. We answer when metadata has taken
// the event, so while all is well the event is never only in our memory, and a crash of ours makes
// the shim send it again. When metadata does not take it within `patience`, we answer all the same
// (a shim of containerd gives up after five tries and forgets the event) and keep it ourselves.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "containerd/types/types.pb.h"
#include "lib/metrics/registry.h"
#include "services/task/loop_thread.h"

namespace gantry::task {

// The container an event is about: every task event has its id in field 1. Empty: none.
std::string ContainerOf(const containerd::types::Envelope& envelope);

struct ForwarderOptions {
  // Below the two seconds that a shim which shuts down waits for its last events.
  absl::Duration patience = absl::Milliseconds(500);
  absl::Duration first_pause = absl::Milliseconds(50);  // Between tries; doubles up to max_pause.
  absl::Duration max_pause = absl::Seconds(2);
  size_t max_kept = 10000;  // Beyond this events other than exits and deletes are dropped.
  metrics::Registry* metrics = nullptr;  // Borrowed; may be null.
};

// Thread-safe. Lives on `loop`, which outlives it.
class EventForwarder {
 public:
  // Hands one envelope to metadata; calls `done` once, on any thread.
  using Send = std::function<void(const containerd::types::Envelope& envelope,
                                  std::function<void(absl::Status)> done)>;

  EventForwarder(LoopThread& loop, Send send, ForwarderOptions options);
  ~EventForwarder();

  // `taken`, when set, is called once on the loop's thread: the sender may forget the event. With
  // kUntilDelivered that is when metadata has it, however long it takes.
  enum class Keep { kForPatience, kUntilDelivered };
  void Forward(containerd::types::Envelope envelope, std::function<void()> taken = nullptr,
               Keep keep = Keep::kForPatience);

  // Waits until nothing is kept. False: some is, after `timeout`.
  bool Drain(absl::Duration timeout);

  size_t kept() const;

 private:
  struct Item {
    containerd::types::Envelope envelope;
    std::function<void()> taken;
    sys::EventLoop::Timer timer = 0;
  };
  struct Queue {
    std::deque<std::shared_ptr<Item>> items;
    bool sending = false;
    absl::Duration pause;
  };
  // Shared with callbacks of sends and timers, which may come after the forwarder has gone.
  struct State;

  std::shared_ptr<State> state_;
  LoopThread& loop_;
};

}  // namespace gantry::task
