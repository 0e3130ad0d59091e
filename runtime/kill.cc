#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/process.h"
#include "runtime/container_impl.h"
#include "runtime/new_process.h"

namespace gantry::runtime {
namespace {

constexpr absl::Duration kKillTimeout = absl::Seconds(10);

}  // namespace

absl::Status Container::Kill(int signal, bool all) {
  RETURN_IF_ERROR(FAILPOINT("runtime.kill.before_signal"));
  const bool alive = impl_->pidfd.ok() && !HasEnded(impl_->pidfd);
  if (all && !impl_->cgroup.empty() &&
      (!alive || !impl_->record.own_pid_namespace || signal != SIGKILL)) {
    absl::StatusOr<std::vector<pid_t>> pids = impl_->cgroup.Pids();
    if (!alive && (!pids.ok() || pids->empty()))
      return absl::FailedPreconditionError("container not running");
    return signal == SIGKILL ? impl_->cgroup.KillAll() : impl_->cgroup.SignalAll(signal);
  }
  if (!alive) return absl::FailedPreconditionError("container not running");
  absl::Status status = sys::SignalPidfd(impl_->pidfd, signal);
  if (absl::IsNotFound(status)) return absl::FailedPreconditionError("container not running");
  RETURN_IF_ERROR(status);
  if (signal != SIGKILL) return absl::OkStatus();
  // A frozen v1 cgroup must be thawed for the signal to have an effect.
  if (impl_->cgroup.IsFrozen().value_or(false)) return impl_->cgroup.Thaw();
  return absl::OkStatus();
}

absl::Status Container::Impl::KillAndWait() {
  if (pidfd.ok()) {
    absl::Status status = sys::SignalPidfd(pidfd, SIGKILL);
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  // Others may share the pid namespace and live on without their init; and a frozen init cannot
  // die.
  const bool frozen = !cgroup.empty() && cgroup.IsFrozen().value_or(false);
  if (frozen || !record.own_pid_namespace) {
    if (!cgroup.empty()) RETURN_IF_ERROR(cgroup.KillAll());
  }
  if (!pidfd.ok()) return absl::OkStatus();
  const absl::Time deadline = absl::Now() + kKillTimeout;
  for (;;) {
    pollfd poll_fd = {pidfd.get(), POLLIN, 0};
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (::poll(&poll_fd, 1, static_cast<int>(std::max<int64_t>(left, 0))) > 0)
      return absl::OkStatus();
    if (left <= 0) {
      return absl::DeadlineExceededError(absl::StrCat("container ", Quote(record.id),
                                                      " did not die within ",
                                                      absl::FormatDuration(kKillTimeout)));
    }
  }
}

}  // namespace gantry::runtime
