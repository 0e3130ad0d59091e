#include "runtime/new_process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <utility>

#include "lib/sys/process.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace gantry::runtime {

using sys::UniqueFd;

bool HasEnded(const UniqueFd& pidfd) {
  pollfd poll_fd = {pidfd.get(), POLLIN, 0};
  return ::poll(&poll_fd, 1, 0) > 0;
}

void Reap(const UniqueFd& pidfd) {
  siginfo_t info = {};
  while (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd.get()), &info, WEXITED) !=
             0 &&
         errno == EINTR) {
  }
}

NewProcess::NewProcess(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}

NewProcess::NewProcess(NewProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), pidfd_(std::move(other.pidfd_)) {}

NewProcess::~NewProcess() {
  if (pid_ <= 0) return;
  (void)sys::SignalPidfd(pidfd_, SIGKILL);
  Reap(pidfd_);
}

void NewProcess::Replace(pid_t pid, UniqueFd pidfd) {
  Reap(pidfd_);
  pid_ = pid;
  pidfd_ = std::move(pidfd);
}

UniqueFd NewProcess::Release() {
  pid_ = 0;
  return std::move(pidfd_);
}

}  // namespace gantry::runtime
