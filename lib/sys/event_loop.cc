#include "lib/sys/event_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/sys/errno.h"

namespace gantry::sys {
namespace {

constexpr int kEventsPerRound = 16;

}  // namespace

absl::Status SetNonBlocking(const UniqueFd& fd) {
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return ErrnoError(errno, "make a descriptor non-blocking");
  }
  return absl::OkStatus();
}

int64_t MonotonicNanos() {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

absl::StatusOr<std::unique_ptr<EventLoop>> EventLoop::Create() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.ok()) return ErrnoError(errno, "make an epoll descriptor");
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll)));
}

// A watch is the slot's generation and its index + 1, so that 0 is free for "none".
EventLoop::Slot* EventLoop::Find(Watch watch) {
  const uint32_t index = static_cast<uint32_t>(watch) - 1;
  if (index >= slots_.size()) return nullptr;
  Slot& slot = slots_[index];
  if (slot.fd < 0 || slot.generation != static_cast<uint32_t>(watch >> 32)) return nullptr;
  return &slot;
}

absl::StatusOr<EventLoop::Watch> EventLoop::Add(int fd, uint32_t events, Callback callback) {
  uint32_t index;
  if (free_slots_.empty()) {
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    index = free_slots_.back();
    free_slots_.pop_back();
  }
  Slot& slot = slots_[index];
  ++slot.generation;
  const Watch watch = (uint64_t{slot.generation} << 32) | (index + 1);
  epoll_event event = {};
  event.events = events;
  event.data.u64 = watch;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    const int error = errno;
    free_slots_.push_back(index);
    if (error == EPERM) {
      return absl::FailedPreconditionError(
          absl::StrCat("watch descriptor ", fd, ": its file is always ready, epoll refuses it"));
    }
    return ErrnoError(error, absl::StrCat("watch descriptor ", fd));
  }
  slot.fd = fd;
  slot.callback = std::make_unique<Callback>(std::move(callback));
  return watch;
}

absl::Status EventLoop::Modify(Watch watch, uint32_t events) {
  Slot* slot = Find(watch);
  if (slot == nullptr) return absl::NotFoundError("modify a watch: it was removed");
  epoll_event event = {};
  event.events = events;
  event.data.u64 = watch;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, slot->fd, &event) != 0) {
    return ErrnoError(errno, absl::StrCat("change the watch of descriptor ", slot->fd));
  }
  return absl::OkStatus();
}

void EventLoop::Remove(Watch watch) {
  Slot* slot = Find(watch);
  if (slot == nullptr) return;
  // Fails only when the descriptor was closed before, which the kernel treats as a removal.
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, slot->fd, nullptr);
  slot->fd = -1;
  removed_.push_back(std::move(slot->callback));
  free_slots_.push_back(static_cast<uint32_t>(slot - slots_.data()));
}

EventLoop::Timer EventLoop::After(absl::Duration delay, std::function<void()> callback) {
  const Timer id = next_timer_++;
  timers_.push_back({id, MonotonicNanos() + absl::ToInt64Nanoseconds(delay), std::move(callback)});
  return id;
}

void EventLoop::Cancel(Timer timer) {
  timers_.erase(std::remove_if(timers_.begin(), timers_.end(),
                               [&](const Timing& timing) { return timing.id == timer; }),
                timers_.end());
}

void EventLoop::Post(std::function<void()> callback) { posted_.push_back(std::move(callback)); }

int EventLoop::TimeoutMillis(absl::Duration limit) const {
  if (!posted_.empty()) return 0;
  int64_t nanos = limit == absl::InfiniteDuration() ? -1 : absl::ToInt64Nanoseconds(limit);
  if (!timers_.empty()) {
    const auto first =
        std::min_element(timers_.begin(), timers_.end(),
                         [](const Timing& a, const Timing& b) { return a.due_ns < b.due_ns; });
    const int64_t left = std::max<int64_t>(0, first->due_ns - MonotonicNanos());
    nanos = nanos < 0 ? left : std::min(nanos, left);
  }
  if (nanos < 0) return -1;
  // Rounded up: waking early would spin until the time has come.
  return static_cast<int>(std::min<int64_t>((nanos + 999'999) / 1'000'000, 1 << 30));
}

void EventLoop::RunTimers() {
  if (timers_.empty()) return;
  const int64_t now = MonotonicNanos();
  for (;;) {
    auto due = timers_.end();
    for (auto timing = timers_.begin(); timing != timers_.end(); ++timing) {
      if (timing->due_ns <= now && (due == timers_.end() || timing->due_ns < due->due_ns)) {
        due = timing;
      }
    }
    if (due == timers_.end()) return;
    std::function<void()> callback = std::move(due->callback);
    timers_.erase(due);
    callback();
  }
}

void EventLoop::RunPosted() {
  // What these post runs in the next round, so that descriptors are not starved.
  std::vector<std::function<void()>> batch;
  batch.swap(posted_);
  for (const std::function<void()>& callback : batch) callback();
}

absl::Status EventLoop::RunOnce(absl::Duration timeout) {
  epoll_event events[kEventsPerRound];
  const int count = ::epoll_wait(epoll_.get(), events, kEventsPerRound, TimeoutMillis(timeout));
  if (count < 0 && errno != EINTR) return ErrnoError(errno, "wait for events");
  for (int i = 0; i < count; ++i) {
    Slot* slot = Find(events[i].data.u64);
    if (slot == nullptr) continue;
    // slots_ may move while the callback adds to it; the callback itself stays where it is.
    Callback* callback = slot->callback.get();
    (*callback)(events[i].events);
  }
  RunTimers();
  RunPosted();
  removed_.clear();
  return absl::OkStatus();
}

absl::Status EventLoop::Run() {
  stopped_ = false;
  while (!stopped_) {
    if (absl::Status status = RunOnce(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace gantry::sys
