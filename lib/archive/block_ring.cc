#include "lib/archive/block_ring.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace gantry::archive {

BlockRing::BlockRing(size_t readers, size_t blocks, size_t block_bytes)
    : block_bytes_(block_bytes),
      sizes_(blocks, 0),
      released_(readers, 0),
      holding_(readers, false) {
  for (size_t i = 0; i < blocks; ++i) blocks_.push_back(std::make_unique<char[]>(block_bytes));
}

bool BlockRing::HasRoom() const {
  const size_t slowest = *std::min_element(released_.begin(), released_.end());
  // A reader that has left counts as infinitely far ahead.
  return slowest == std::numeric_limits<size_t>::max() || written_ - slowest < blocks_.size();
}

char* BlockRing::Reserve() {
  absl::MutexLock lock(&mutex_);
  const auto ready = [this]()
                         ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return cancelled_ || HasRoom(); };
  mutex_.Await(absl::Condition(&ready));
  if (cancelled_) return nullptr;
  return blocks_[written_ % blocks_.size()].get();
}

void BlockRing::Publish(size_t size) {
  absl::MutexLock lock(&mutex_);
  sizes_[written_ % sizes_.size()] = size;
  ++written_;
}

void BlockRing::Close(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  if (status_.ok()) status_ = std::move(status);
}

absl::StatusOr<absl::string_view> BlockRing::Next(size_t reader) {
  absl::MutexLock lock(&mutex_);
  if (holding_[reader]) {
    holding_[reader] = false;
    ++released_[reader];
  }
  const auto ready = [this, reader]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return cancelled_ || closed_ || released_[reader] < written_;
  };
  mutex_.Await(absl::Condition(&ready));
  if (cancelled_) return status_;
  if (released_[reader] >= written_) {
    if (!status_.ok()) return status_;
    return absl::string_view();
  }
  holding_[reader] = true;
  const size_t slot = released_[reader] % blocks_.size();
  return absl::string_view(blocks_[slot].get(), sizes_[slot]);
}

void BlockRing::Leave(size_t reader) {
  absl::MutexLock lock(&mutex_);
  holding_[reader] = false;
  released_[reader] = std::numeric_limits<size_t>::max();
}

void BlockRing::Cancel(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  if (status_.ok()) status_ = std::move(status);
}

}  // namespace gantry::archive
