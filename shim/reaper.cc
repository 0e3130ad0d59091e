#include "shim/reaper.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/time/clock.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"

namespace gantry::shim {
namespace {

constexpr absl::Duration kKillAfter = absl::Seconds(12);

}  // namespace

absl::StatusOr<std::unique_ptr<Reaper>> Reaper::Create(sys::EventLoop& loop) {
  auto reaper = std::unique_ptr<Reaper>(new Reaper(loop));
  sigset_t child;
  ::sigemptyset(&child);
  ::sigaddset(&child, SIGCHLD);
  if (::sigprocmask(SIG_BLOCK, &child, nullptr) != 0)
    return sys::ErrnoError(errno, "block SIGCHLD");
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) {
    return sys::ErrnoError(errno, "become a subreaper");
  }
  reaper->signals_.Reset(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!reaper->signals_.ok()) return sys::ErrnoError(errno, "make a signal descriptor");
  Reaper* const raw = reaper.get();
  ASSIGN_OR_RETURN(reaper->watch_, loop.Add(reaper->signals_.get(), EPOLLIN, [raw](uint32_t) {
    signalfd_siginfo info[8];
    while (::read(raw->signals_.get(), info, sizeof info) > 0) {
    }
    raw->ReapNow();
  }));
  return reaper;
}

Reaper::~Reaper() { loop_.Remove(watch_); }

void Reaper::Watch(pid_t pid, Callback callback) {
  if (const auto found = unknown_.find(pid); found != unknown_.end()) {
    loop_.Post([exit = found->second, callback = std::move(callback)] { callback(exit); });
    unknown_.erase(found);
    return;
  }
  watched_[pid] = std::move(callback);
}

void Reaper::ReleaseUnknown() {
  if (--holders_ == 0) unknown_.clear();
}

void Reaper::ReapNow() {
  for (;;) {
    siginfo_t info = {};
    if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0) return;
    ChildExit exit;
    exit.time = absl::Now();
    exit.status = info.si_code == CLD_EXITED
                      ? sys::ExitStatus{info.si_status, 0}
                      : sys::ExitStatus{128 + info.si_status, info.si_status};
    const auto found = watched_.find(info.si_pid);
    if (found != watched_.end()) {
      const Callback callback = std::move(found->second);
      watched_.erase(found);
      callback(exit);
    } else if (holders_ > 0) {
      unknown_[info.si_pid] = exit;
    }
  }
}

void Reaper::EndGently(pid_t pid, sys::UniqueFd pidfd, absl::Duration patience) {
  struct Servant {
    sys::UniqueFd pidfd;
    sys::EventLoop::Timer timer = 0;
  };
  auto servant = std::make_shared<Servant>();
  servant->pidfd = std::move(pidfd);
  Watch(pid, [this, servant](const ChildExit&) { loop_.Cancel(servant->timer); });
  servant->timer = loop_.After(patience, [this, servant] {
    (void)sys::SignalPidfd(servant->pidfd, SIGTERM);
    servant->timer =
        loop_.After(kKillAfter, [servant] { (void)sys::SignalPidfd(servant->pidfd, SIGKILL); });
  });
}

}  // namespace gantry::shim
