// An endpoint that is being made on another thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/engine/executor.h"
#include "services/engine/network/network.h"

namespace gantry::engine {

// Thread-safe. Shared by who makes the endpoint and who waits for it.
class PendingEndpoint {
 public:
  using Maker = std::function<absl::StatusOr<network::Endpoint>()>;

  // Runs `make` on the executor. Should the executor drop it, the answer is Cancelled.
  static std::shared_ptr<PendingEndpoint> Begin(Executor& executor, Maker make) {
    auto pending = std::make_shared<PendingEndpoint>();
    auto answer = std::make_shared<Answer>(pending);
    executor.Run([answer, make = std::move(make)] { answer->pending->Set(make()); });
    return pending;
  }

  // Waits for it; Connect itself is bounded.
  absl::StatusOr<network::Endpoint> Get() const {
    absl::MutexLock lock(&mutex_);
    auto there = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return endpoint_.has_value(); };
    mutex_.Await(absl::Condition(&there));
    return *endpoint_;
  }

 private:
  struct Answer {
    explicit Answer(std::shared_ptr<PendingEndpoint> to) : pending(std::move(to)) {}
    ~Answer() { pending->Set(absl::CancelledError("the engine is stopping")); }
    std::shared_ptr<PendingEndpoint> pending;
  };

  void Set(absl::StatusOr<network::Endpoint> endpoint) {
    absl::MutexLock lock(&mutex_);
    if (!endpoint_.has_value()) endpoint_ = std::move(endpoint);
  }

  mutable absl::Mutex mutex_;
  std::optional<absl::StatusOr<network::Endpoint>> endpoint_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::engine
