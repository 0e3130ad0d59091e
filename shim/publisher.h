// Events to the daemon, in order.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lib/sys/event_loop.h"
#include "lib/ttrpc/client.h"

namespace gantry::shim {

// One queue, one connection, each event acknowledged before the next is sent: that keeps their
// order at the daemon. A daemon that is not there is called again, after 100 ms at first, 5 s at
// most, while the shim lives; exits and what belongs to them (start, delete, oom) are never given
// up. Other events are dropped, the oldest first, when more than kMaxQueued wait, and after five
// refusals.
//
// Single-threaded.
class Publisher {
 public:
  static constexpr size_t kMaxQueued = 1024;

  // `address`: the daemon's ttrpc socket; empty: events go nowhere.
  Publisher(sys::EventLoop& loop, std::string address, std::string ns)
      : loop_(loop), address_(std::move(address)), ns_(std::move(ns)) {}
  ~Publisher();

  // `payload`: the event message, of the type `type_url` ("containerd.events.TaskExit").
  void Publish(absl::string_view topic, absl::string_view type_url, absl::string_view payload);

  // The daemon has been heard of: do not wait for the next attempt.
  void Kick();

  bool empty() const { return queue_.empty(); }
  size_t queued() const { return queue_.size(); }
  uint64_t dropped() const { return dropped_; }
  // Called whenever the queue has become empty.
  void OnEmpty(std::function<void()> callback) { on_empty_ = std::move(callback); }

 private:
  struct Event {
    std::string request;  // A whole ForwardRequest.
    bool precious = false;
    int refusals = 0;
  };
  void SendNext();
  void OnAnswer(const absl::Status& status);
  void RetryLater();

  sys::EventLoop& loop_;
  const std::string address_;
  const std::string ns_;
  std::deque<Event> queue_;
  std::unique_ptr<ttrpc::LoopClient> client_;
  bool sending_ = false;
  sys::EventLoop::Timer retry_ = 0;
  absl::Duration pause_ = absl::ZeroDuration();
  uint64_t dropped_ = 0;
  std::function<void()> on_empty_;
};

}  // namespace gantry::shim
