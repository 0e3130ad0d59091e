#include "shim/oom_monitor.h"

#include <utility>

#include "lib/log/log.h"

namespace gantry::shim {

OomMonitor::~OomMonitor() { loop_.Remove(event_); }

void OomMonitor::Begin(const cgroup::Cgroup& cgroup) {
  absl::StatusOr<cgroup::OomWatch> watch = cgroup::OomWatch::Open(cgroup);
  if (!watch.ok()) {
    log::Debug("no watch for lack of memory", {{"status", watch.status()}});
    return;
  }
  watch_ = *std::move(watch);
  absl::StatusOr<sys::EventLoop::Watch> added =
      loop_.Add(watch_->fd(), EPOLLIN, [this](uint32_t) { Look(); });
  if (added.ok()) event_ = *added;
}

void OomMonitor::Look() {
  if (!watch_.has_value()) return;
  const uint64_t kills = watch_->Drain();
  const bool gone = watch_->gone();
  if (gone) {
    loop_.Remove(std::exchange(event_, 0));
    watch_.reset();
  }
  if (kills == 0) return;
  kills_ += kills;
  on_kill_();
}

}  // namespace gantry::shim
