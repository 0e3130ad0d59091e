#include "runtime/cli/foreground.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <string>

#include "absl/cleanup/cleanup.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace gantry::runtime {
namespace {

void CopySize(int from, int to) {
  winsize size = {};
  if (::ioctl(from, TIOCGWINSZ, &size) == 0) (void)::ioctl(to, TIOCSWINSZ, &size);
}

// One read and all of it written; false at the end of `from`.
bool CopySome(int from, int to) {
  char bytes[16384];
  const ssize_t size = ::read(from, bytes, sizeof bytes);
  if (size < 0 && (errno == EINTR || errno == EAGAIN)) return true;
  if (size <= 0) return false;
  for (ssize_t done = 0; done < size;) {
    const ssize_t written = ::write(to, bytes + done, static_cast<size_t>(size - done));
    if (written < 0 && errno != EINTR) return false;
    if (written > 0) done += written;
  }
  return true;
}

int ReapCode(const sys::UniqueFd& pidfd) {
  siginfo_t info = {};
  while (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd.get()), &info, WEXITED) !=
         0) {
    if (errno != EINTR) return 255;
  }
  return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

}  // namespace

absl::Status Foreground::Begin() {
  sigset_t passed;
  ::sigfillset(&passed);
  for (int kept : {SIGKILL, SIGSTOP, SIGCHLD, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTTIN, SIGTTOU}) {
    ::sigdelset(&passed, kept);
  }
  if (::sigprocmask(SIG_BLOCK, &passed, nullptr) != 0)
    return sys::ErrnoError(errno, "block signals");
  signals_.Reset(::signalfd(-1, &passed, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_.ok()) return sys::ErrnoError(errno, "make a signalfd");
  return absl::OkStatus();
}

absl::StatusOr<int> Foreground::Wait(const sys::UniqueFd& pidfd, const sys::UniqueFd& console) {
  termios saved = {};
  const bool raw = console.ok() && ::tcgetattr(0, &saved) == 0;
  absl::Cleanup restore = [&] {
    if (raw) ::tcsetattr(0, TCSANOW, &saved);
  };
  if (raw) {
    termios mode = saved;
    ::cfmakeraw(&mode);
    ::tcsetattr(0, TCSANOW, &mode);
    CopySize(0, console.get());
  }
  bool input = console.ok(), output = console.ok();
  for (;;) {
    pollfd polls[] = {{pidfd.get(), POLLIN, 0},
                      {signals_.get(), POLLIN, 0},
                      {input ? 0 : -1, POLLIN, 0},
                      {output ? console.get() : -1, POLLIN, 0}};
    if (::poll(polls, 4, -1) < 0) {
      if (errno == EINTR) continue;
      return sys::ErrnoError(errno, "wait for the program");
    }
    if (polls[1].revents != 0) {
      signalfd_siginfo info = {};
      while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGWINCH && raw) {
          CopySize(0, console.get());
        } else {
          (void)sys::SignalPidfd(pidfd, static_cast<int>(info.ssi_signo));
        }
      }
    }
    if (polls[2].revents != 0) input = CopySome(0, console.get());
    if (polls[3].revents != 0) output = CopySome(console.get(), 1);
    if (polls[0].revents == 0) continue;
    // What the terminal still holds, up to its hang-up.
    while (output) {
      pollfd rest = {console.get(), POLLIN, 0};
      if (::poll(&rest, 1, 0) <= 0) break;
      output = CopySome(console.get(), 1);
    }
    return ReapCode(pidfd);
  }
}

}  // namespace gantry::runtime
