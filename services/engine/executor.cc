#include "services/engine/executor.h"

#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "lib/base/request_id.h"

namespace gantry::engine {
namespace {

constexpr absl::Duration kIdleLife = absl::Seconds(30);

Executor::Work OfThisRequest(Executor::Work work) {
  const std::string& id = CurrentRequestId();
  if (id.empty()) return work;
  return [id, work = std::move(work)] {
    ScopedRequestId scope(id);
    work();
  };
}

}  // namespace

absl::Duration RetryDelay(int attempt) {
  constexpr absl::Duration kLongest = absl::Seconds(30);
  return std::min(absl::Milliseconds(250) * (1 << std::min(attempt, 10)), kLongest);
}

Executor::Executor(size_t max_threads)
    : max_threads_(max_threads), timer_thread_([this] { TimerLoop(); }) {}

Executor::~Executor() { Stop(); }

void Executor::Run(Work work) {
  absl::MutexLock lock(&mutex_);
  if (stopped_) return;
  queue_.push_back(OfThisRequest(std::move(work)));
  if (idle_ >= queue_.size() || threads_ >= max_threads_) return;
  ++threads_;
  // Detached: Stop waits for the count, not for the handles.
  std::thread([this] { Worker(); }).detach();
}

Executor::Timer Executor::RunAfter(absl::Duration delay, Work work) {
  absl::MutexLock lock(&mutex_);
  const Timer timer = ++last_timer_;
  if (stopped_) return timer;
  delayed_.emplace(std::make_pair(absl::Now() + delay, timer), OfThisRequest(std::move(work)));
  delayed_changed_.Signal();
  return timer;
}

bool Executor::Cancel(Timer timer) {
  Work dropped;  // Destroyed after the lock is released: it may own what calls back here.
  absl::MutexLock lock(&mutex_);
  for (auto at = delayed_.begin(); at != delayed_.end(); ++at) {
    if (at->first.second != timer) continue;
    dropped = std::move(at->second);
    delayed_.erase(at);
    return true;
  }
  return false;
}

void Executor::Stop() {
  std::deque<Work> dropped;
  std::map<std::pair<absl::Time, Timer>, Work> dropped_delayed;
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    dropped.swap(queue_);
    dropped_delayed.swap(delayed_);
    delayed_changed_.SignalAll();
  }
  if (timer_thread_.joinable()) timer_thread_.join();
  absl::MutexLock lock(&mutex_);
  auto all_gone = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return threads_ == 0; };
  mutex_.Await(absl::Condition(&all_gone));
}

void Executor::Worker() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    ++idle_;
    const bool woken =
        mutex_.AwaitWithTimeout(absl::Condition(this, &Executor::HasWork), kIdleLife);
    --idle_;
    if (!woken || queue_.empty()) break;
    Work work = std::move(queue_.front());
    queue_.pop_front();
    mutex_.Unlock();
    work();
    work = nullptr;
    mutex_.Lock();
  }
  --threads_;
}

void Executor::TimerLoop() {
  absl::MutexLock lock(&mutex_);
  while (!stopped_) {
    if (delayed_.empty()) {
      delayed_changed_.Wait(&mutex_);
      continue;
    }
    auto first = delayed_.begin();
    if (first->first.first > absl::Now()) {
      delayed_changed_.WaitWithDeadline(&mutex_, first->first.first);
      continue;
    }
    Work work = std::move(first->second);
    delayed_.erase(first);
    mutex_.Unlock();
    Run(std::move(work));
    mutex_.Lock();
  }
}

}  // namespace gantry::engine
