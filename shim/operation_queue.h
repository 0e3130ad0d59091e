// Operations on one container, one after the other.
#pragma once

#include <deque>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "lib/sys/event_loop.h"

namespace gantry::shim {

// An operation may take many turns of the event loop; the next one begins when it has called
// Finish(). Single-threaded.
class OperationQueue {
 public:
  // `run` calls Finish() once, when it is through; `reject` is called instead when the queue is
  // closed before its turn.
  struct Operation {
    std::function<void()> run;
    std::function<void(absl::Status)> reject;
  };

  explicit OperationQueue(sys::EventLoop& loop) : loop_(loop) {}
  ~OperationQueue();
  OperationQueue(const OperationQueue&) = delete;
  OperationQueue& operator=(const OperationQueue&) = delete;

  // Runs it now when nothing else is under way.
  void Add(Operation operation);
  // Begins an operation that did not come through the queue; it finishes as the others.
  void Occupy() { busy_ = true; }
  void Finish();
  // No operation runs any more; those that wait are rejected with `why`.
  void Close(const absl::Status& why);

 private:
  sys::EventLoop& loop_;
  std::deque<Operation> waiting_;
  bool busy_ = false;
  // Tells what was posted to the loop that this object is gone.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace gantry::shim
