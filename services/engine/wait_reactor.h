// A parked unary call: answered once, by whatever comes first.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "lib/rpc/status.h"

namespace gantry::engine {

// Handed to gRPC, which owns it until OnDone; callbacks of the domain hold it by shared_ptr, so
// they may come late. Thread-safe.
class WaitReactor final : public grpc::ServerUnaryReactor,
                          public std::enable_shared_from_this<WaitReactor> {
 public:
  static std::shared_ptr<WaitReactor> Make() {
    std::shared_ptr<WaitReactor> reactor(new WaitReactor);
    reactor->self_ = reactor;
    return reactor;
  }

  // The first answer counts. `fill` writes the response and runs only if this is the first.
  void Answer(const absl::Status& status, const std::function<void()>& fill = nullptr) {
    {
      absl::MutexLock lock(&mutex_);
      if (answered_) return;
      answered_ = true;
    }
    if (status.ok() && fill != nullptr) fill();
    Finish(rpc::ToGrpcStatus(status));
  }

  // What to do when the caller goes away; at once when it has gone already.
  void SetCancel(std::function<void()> cancel) {
    {
      absl::MutexLock lock(&mutex_);
      if (!cancelled_) {
        cancel_ = std::move(cancel);
        return;
      }
    }
    cancel();
  }

  void OnCancel() override {
    std::function<void()> cancel;
    {
      absl::MutexLock lock(&mutex_);
      cancelled_ = true;
      cancel.swap(cancel_);
    }
    if (cancel != nullptr) cancel();
    Answer(absl::CancelledError("the caller has gone"));
  }

  void OnDone() override { std::shared_ptr<WaitReactor> last = std::move(self_); }

 private:
  WaitReactor() = default;

  std::shared_ptr<WaitReactor> self_;
  absl::Mutex mutex_;
  bool answered_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void()> cancel_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::engine
