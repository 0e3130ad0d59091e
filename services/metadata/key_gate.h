// One at a time for each key: for operations on the same name that span calls to a backend, where a
// lock may not be held. Whoever waits is bounded by its own deadline.
#pragma once

#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gantry::metadata {

// Thread-safe.
class KeyGate {
 public:
  // Holds a key. Move-only.
  class Holder {
   public:
    Holder(KeyGate* gate, std::string key) : gate_(gate), key_(std::move(key)) {}
    Holder(Holder&& other) noexcept
        : gate_(std::exchange(other.gate_, nullptr)), key_(std::move(other.key_)) {}
    Holder& operator=(Holder&&) = delete;
    ~Holder() {
      if (gate_ != nullptr) gate_->Leave(key_);
    }

   private:
    KeyGate* gate_;
    std::string key_;
  };

  // Errors: Unavailable — another operation on `key` was still under way at `deadline`.
  absl::StatusOr<Holder> Enter(const std::string& key, absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    auto free = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !held_.contains(key); };
    if (!mutex_.AwaitWithDeadline(absl::Condition(&free), deadline)) {
      return absl::UnavailableError(
          "another operation on the same snapshot is under way; try again");
    }
    held_.insert(key);
    return Holder(this, key);
  }

 private:
  void Leave(const std::string& key) {
    absl::MutexLock lock(&mutex_);
    held_.erase(key);
  }

  absl::Mutex mutex_;
  absl::flat_hash_set<std::string> held_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::metadata
