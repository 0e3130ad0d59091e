#include "ctl/terminal.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>

#include "lib/sys/errno.h"

namespace gantry::ctl {
namespace {

// Read by a signal handler: written before raw_fd becomes valid.
termios saved_settings;
std::atomic<int> raw_fd{-1};

// Signals that end a program and that nobody handles in raw mode (a session takes the others).
constexpr int kDeadlySignals[] = {SIGABRT, SIGBUS,  SIGFPE,  SIGHUP, SIGILL,
                                  SIGINT,  SIGQUIT, SIGSEGV, SIGSYS, SIGTERM};

void RestoreAndDie(int signal) {
  RestoreTerminal();
  // SA_RESETHAND put the default action back: now it ends the program as it would have.
  ::raise(signal);
}

}  // namespace

std::optional<WindowSize> GetWindowSize(int fd) {
  winsize size = {};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) {
    return std::nullopt;
  }
  return WindowSize{size.ws_col, size.ws_row};
}

void RestoreTerminal() {
  const int fd = raw_fd.exchange(-1);
  if (fd < 0) return;
  // A program in the background that restores its terminal would be stopped for it (SIGTTOU).
  sigset_t block;
  sigset_t before;
  ::sigemptyset(&block);
  ::sigaddset(&block, SIGTTOU);
  ::sigprocmask(SIG_BLOCK, &block, &before);
  ::tcsetattr(fd, TCSADRAIN, &saved_settings);
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
}

absl::StatusOr<RawMode> RawMode::Enter(int fd) {
  termios settings = {};
  if (::tcgetattr(fd, &settings) != 0) {
    const int error = errno;
    if (error == ENOTTY) return absl::FailedPreconditionError("the input device is not a TTY");
    return sys::ErrnoError(error, "read the terminal's settings");
  }
  saved_settings = settings;
  raw_fd.store(fd);
  struct sigaction action = {};
  action.sa_handler = RestoreAndDie;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
  for (const int signal : kDeadlySignals) {
    struct sigaction current = {};
    // What the caller ignores (nohup) stays ignored.
    if (::sigaction(signal, nullptr, &current) == 0 && current.sa_handler == SIG_DFL) {
      ::sigaction(signal, &action, nullptr);
    }
  }
  ::cfmakeraw(&settings);
  if (::tcsetattr(fd, TCSADRAIN, &settings) != 0) {
    const int error = errno;
    raw_fd.store(-1);
    return sys::ErrnoError(error, "switch the terminal to raw mode");
  }
  return RawMode();
}

RawMode::~RawMode() {
  if (active_) RestoreTerminal();
}

}  // namespace gantry::ctl
