// One parked unary call: answered once, by whoever comes first, the answer or the caller's going
// away.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace gantry::task {

// Deletes itself when gRPC is done with it. Its `Answer` may be kept by anybody for any time:
// request, response and context are touched only while the call is open.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  class Answer {
   public:
    // Runs `fill` (which writes the response) and finishes the call, unless it is finished.
    void operator()(const std::function<grpc::Status()>& fill) const {
      absl::MutexLock lock(&gate_->mutex);
      UnaryCall* const call = std::exchange(gate_->call, nullptr);
      if (call != nullptr) call->Finish(fill());
    }
    void operator()(const grpc::Status& status) const {
      (*this)([&status] { return status; });
    }

   private:
    friend class UnaryCall;
    struct Gate {
      absl::Mutex mutex;
      UnaryCall* call ABSL_GUARDED_BY(mutex) = nullptr;
    };
    // Shared by the call and everybody who may answer it, in whatever order they go.
    std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();
  };

  UnaryCall() {
    absl::MutexLock lock(&answer_.gate_->mutex);
    answer_.gate_->call = this;
  }

  const Answer& answer() const { return answer_; }

  // Called when the caller went away before there was an answer.
  void SetOnCancel(std::function<void()> on_cancel) {
    absl::MutexLock lock(&mutex_);
    on_cancel_ = std::move(on_cancel);
  }

  void OnCancel() override {
    std::function<void()> on_cancel;
    {
      absl::MutexLock lock(&mutex_);
      on_cancel = std::move(on_cancel_);
      on_cancel_ = nullptr;
    }
    const Answer answer = answer_;
    if (on_cancel) on_cancel();
    answer(grpc::Status(grpc::StatusCode::CANCELLED, "the caller has gone"));
  }
  void OnDone() override { delete this; }

 private:
  Answer answer_;
  absl::Mutex mutex_;
  std::function<void()> on_cancel_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::task
