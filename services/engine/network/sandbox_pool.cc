#include "services/engine/network/sandbox_pool.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>

#include "lib/log/log.h"
#include "lib/sys/errno.h"

namespace gantry::network {
namespace {

constexpr int kRetryFillMs = 1000;
constexpr absl::Duration kFirstRetry = absl::Milliseconds(100);
constexpr absl::Duration kLongestRetry = absl::Seconds(10);

}  // namespace

absl::StatusOr<std::unique_ptr<SandboxPool>> SandboxPool::Create(Sizes sizes, Hooks hooks) {
  sys::UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.ok()) return sys::ErrnoError(errno, "make an eventfd for the pool of namespaces");
  std::unique_ptr<SandboxPool> pool(new SandboxPool(sizes, std::move(hooks), std::move(wake)));
  pool->thread_ = std::thread([self = pool.get()] { self->Run(); });
  return pool;
}

SandboxPool::SandboxPool(Sizes sizes, Hooks hooks, sys::UniqueFd wake)
    : hooks_(std::move(hooks)), wake_(std::move(wake)), sizes_(sizes) {}

SandboxPool::~SandboxPool() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
    std::move(bridged_.begin(), bridged_.end(), std::back_inserter(retired_));
    std::move(bare_.begin(), bare_.end(), std::back_inserter(retired_));
    bridged_.clear();
    bare_.clear();
  }
  Wake();
  thread_.join();
}

std::optional<Sandbox> SandboxPool::Take(bool bridged) {
  std::optional<Sandbox> taken;
  {
    absl::MutexLock lock(&mutex_);
    std::deque<Sandbox>& ready = bridged ? bridged_ : bare_;
    if (ready.empty()) return std::nullopt;
    taken = std::move(ready.front());
    ready.pop_front();
    fill_paused_ = false;
  }
  Wake();
  return taken;
}

std::optional<Sandbox> SandboxPool::TakeWithAddress(netlink::Ipv4Address ip) {
  absl::MutexLock lock(&mutex_);
  auto found = std::find_if(bridged_.begin(), bridged_.end(),
                            [&](const Sandbox& sandbox) { return sandbox.ip == ip; });
  if (found == bridged_.end()) return std::nullopt;
  Sandbox taken = std::move(*found);
  bridged_.erase(found);
  Wake();
  return taken;
}

void SandboxPool::Retire(Sandbox sandbox) {
  {
    absl::MutexLock lock(&mutex_);
    retired_.push_back(std::move(sandbox));
    fill_paused_ = false;
  }
  Wake();
}

void SandboxPool::Resize(Sizes sizes) {
  {
    absl::MutexLock lock(&mutex_);
    sizes_ = sizes;
    fill_paused_ = false;
  }
  Wake();
}

bool SandboxPool::Settled() const {
  if (working_ || !retired_.empty() || (!refused_.empty() && !stop_)) return false;
  const bool full = bridged_.size() >= static_cast<size_t>(sizes_.bridged) &&
                    bare_.size() >= static_cast<size_t>(sizes_.bare);
  return full || fill_paused_ || stop_;
}

void SandboxPool::Settle(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(
                              +[](SandboxPool* self) {
                                self->mutex_.AssertHeld();
                                return self->Settled();
                              },
                              this),
                          timeout);
}

std::vector<Sandbox> SandboxPool::Ready() const {
  absl::MutexLock lock(&mutex_);
  std::vector<Sandbox> ready(bridged_.begin(), bridged_.end());
  ready.insert(ready.end(), bare_.begin(), bare_.end());
  return ready;
}

size_t SandboxPool::retired() const {
  absl::MutexLock lock(&mutex_);
  return retired_.size() + refused_.size();
}

SandboxPool::Step SandboxPool::NextStep() {
  if (stop_) return retired_.empty() ? Step::kStop : Step::kRemove;
  if (absl::Now() >= retry_at_) {
    retired_.insert(retired_.end(), refused_.begin(), refused_.end());
    refused_.clear();
    retry_at_ = absl::InfiniteFuture();
  }
  // A start that finds the pool empty pays for it, so filling goes first. It cannot starve removal:
  // it ends when the pool is full or out of addresses.
  if (!fill_paused_ && bridged_.size() < static_cast<size_t>(sizes_.bridged)) {
    return Step::kFillBridged;
  }
  if (!fill_paused_ && bare_.size() < static_cast<size_t>(sizes_.bare)) return Step::kFillBare;
  return retired_.empty() ? Step::kWait : Step::kRemove;
}

void SandboxPool::Run() {
  for (;;) {
    Step step;
    {
      absl::MutexLock lock(&mutex_);
      working_ = false;
      step = NextStep();
      working_ = step != Step::kWait;
    }
    switch (step) {
      case Step::kStop: {
        absl::MutexLock lock(&mutex_);
        working_ = false;
        return;
      }
      case Step::kFillBridged:
      case Step::kFillBare:
        Fill(step == Step::kFillBridged);
        break;
      case Step::kRemove:
        RemoveRetired();
        break;
      case Step::kWait:
        WaitForWork();
        break;
    }
  }
}

void SandboxPool::Fill(bool bridged) {
  absl::StatusOr<Sandbox> made = hooks_.make(bridged);
  absl::MutexLock lock(&mutex_);
  if (!made.ok()) {
    fill_paused_ = true;
    // No address left is the user's business when a container wants one, not ours now.
    if (made.status().code() != absl::StatusCode::kResourceExhausted) {
      log::Warning("network namespace could not be made ready; starts make their own",
                   {{"error", made.status()}});
    }
    return;
  }
  if (stop_) {
    retired_.push_back(*std::move(made));
  } else {
    (bridged ? bridged_ : bare_).push_back(*std::move(made));
  }
}

void SandboxPool::RemoveRetired() {
  std::vector<Sandbox> batch;
  {
    absl::MutexLock lock(&mutex_);
    batch.swap(retired_);
  }
  std::vector<Sandbox> left = hooks_.remove(std::move(batch));
  absl::MutexLock lock(&mutex_);
  if (left.empty()) {
    if (refused_.empty()) retry_pause_ = absl::ZeroDuration();
    return;
  }
  if (retry_pause_ == absl::ZeroDuration()) {
    log::Warning("network namespaces could not be removed entirely; trying again",
                 {{"count", left.size()}});
  }
  refused_.insert(refused_.end(), left.begin(), left.end());
  retry_pause_ = std::clamp(retry_pause_ * 2, kFirstRetry, kLongestRetry);
  retry_at_ = absl::Now() + retry_pause_;
}

// -1: until something happens.
int SandboxPool::WaitMilliseconds() {
  absl::MutexLock lock(&mutex_);
  absl::Duration wait = fill_paused_ ? absl::Milliseconds(kRetryFillMs) : absl::InfiniteDuration();
  wait = std::min(wait, retry_at_ - absl::Now());
  if (wait == absl::InfiniteDuration()) return -1;
  wait = std::max(absl::Ceil(wait, absl::Milliseconds(1)), absl::ZeroDuration());
  return static_cast<int>(absl::ToInt64Milliseconds(wait));
}

void SandboxPool::WaitForWork() {
  const int timeout_ms = WaitMilliseconds();
  pollfd waited[2] = {{wake_.get(), POLLIN, 0}, {hooks_.watched_fd, POLLIN, 0}};
  const int ready = ::poll(waited, hooks_.watched_fd >= 0 ? 2 : 1, timeout_ms);
  if (ready == 0) {
    absl::MutexLock lock(&mutex_);
    fill_paused_ = false;
    return;
  }
  if (ready < 0) return;  // EINTR; what there is to do is looked at again.
  if (waited[0].revents != 0) {
    uint64_t count;
    (void)!::read(wake_.get(), &count, sizeof(count));
  }
  if (hooks_.watched_fd >= 0 && waited[1].revents != 0) {
    {
      absl::MutexLock lock(&mutex_);
      working_ = true;
    }
    hooks_.on_event();
  }
}

void SandboxPool::Wake() {
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof(one));
}

}  // namespace gantry::network
