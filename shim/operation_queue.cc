#include "shim/operation_queue.h"

#include <utility>

namespace gantry::shim {

OperationQueue::~OperationQueue() { *alive_ = false; }

void OperationQueue::Add(Operation operation) {
  if (busy_) {
    waiting_.push_back(std::move(operation));
    return;
  }
  busy_ = true;
  operation.run();
}

void OperationQueue::Finish() {
  if (waiting_.empty()) {
    busy_ = false;
    return;
  }
  // From the loop: an operation ends deep inside another's callbacks.
  loop_.Post([this, alive = alive_] {
    if (!*alive || waiting_.empty()) return;
    const Operation next = std::move(waiting_.front());
    waiting_.pop_front();
    next.run();
  });
}

void OperationQueue::Close(const absl::Status& why) {
  busy_ = true;
  std::deque<Operation> rejected;
  rejected.swap(waiting_);
  for (const Operation& operation : rejected) operation.reject(why);
}

}  // namespace gantry::shim
