#pragma once

#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gantry::image {

// Lets one at a time do the work a key stands for; whoever waited looks afterwards whether it is
// done, and otherwise does it. So one download serves many pulls, and a pull that fails or is
// cancelled takes nobody with it. Thread-safe.
class SingleFlight {
 public:
  // The right to work on a key; destruction passes it on. Move-only.
  class Turn {
   public:
    Turn() = default;
    Turn(SingleFlight* flight, std::string key) : flight_(flight), key_(std::move(key)) {}
    Turn(Turn&& other) noexcept
        : flight_(std::exchange(other.flight_, nullptr)), key_(std::move(other.key_)) {}
    Turn& operator=(Turn&& other) noexcept {
      if (this != &other) {
        Release();
        flight_ = std::exchange(other.flight_, nullptr);
        key_ = std::move(other.key_);
      }
      return *this;
    }
    ~Turn() { Release(); }

    void Release() {
      if (flight_ == nullptr) return;
      absl::MutexLock lock(&flight_->mutex_);
      flight_->busy_.erase(key_);
      flight_ = nullptr;
    }

   private:
    SingleFlight* flight_ = nullptr;
    std::string key_;
  };

  // Waits for the key. Errors: Cancelled.
  absl::StatusOr<Turn> Take(const std::string& key, const std::function<bool()>& cancelled) {
    absl::MutexLock lock(&mutex_);
    const auto is_free = [this, &key] { return !busy_.contains(key); };
    while (!mutex_.AwaitWithTimeout(absl::Condition(&is_free), absl::Milliseconds(200))) {
      if (cancelled && cancelled()) return absl::CancelledError("the pull was cancelled");
    }
    busy_.insert(key);
    return Turn(this, key);
  }

 private:
  absl::Mutex mutex_;
  absl::flat_hash_set<std::string> busy_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::image
