// Processes, known by pidfd (SECURITY-RULES 5). Spawn never runs our code in a forked copy of a
// threaded process: it execs (SECURITY-RULES 6).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lib/sys/unique_fd.h"

namespace gantry::sys {

// How a process ended. `code` is what a shell shows: the exit code, or 128 + the signal.
struct ExitStatus {
  int code = 0;
  int signal = 0;  // 0: it exited by itself.
};

// Owns a child: killed with SIGKILL and reaped on destruction unless released. Move-only.
class Child {
 public:
  Child() = default;
  Child(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  Child(Child&& other) noexcept;
  Child& operator=(Child&& other) noexcept;
  ~Child();

  pid_t pid() const { return pid_; }
  const UniqueFd& pidfd() const { return pidfd_; }
  bool running() const { return pid_ > 0; }

  absl::Status Signal(int signal) const;

  // Waits and reaps. Errors: DeadlineExceeded — still running after `timeout`.
  absl::StatusOr<ExitStatus> Wait(absl::Duration timeout = absl::InfiniteDuration());

  // Kills and reaps now; fine when it has ended already.
  void KillAndReap();

  // The process lives on without this owner, which will not reap it.
  void Release();

 private:
  pid_t pid_ = 0;
  UniqueFd pidfd_;
};

struct SpawnOptions {
  std::vector<std::string> argv;         // argv[0] is the program: a path; no PATH search.
  std::string program;                   // Executed instead of argv[0] when not empty.
  std::vector<std::string> environment;  // "NAME=value"; nothing is inherited.
  std::string working_directory;         // Empty: the caller's.
  // Descriptors of the child: (ours, theirs). Everything else is closed. 0, 1 and 2 default to
  // /dev/null.
  std::vector<std::pair<int, int>> descriptors;
  bool new_session = false;             // setsid(2).
  bool new_process_group = false;       // setpgid(0, 0).
  bool die_with_parent_thread = false;  // PR_SET_PDEATHSIG, SIGKILL.
};

// Starts a program by clone(CLONE_VM | CLONE_VFORK) and exec; the caller may have threads and a
// large memory. Errors: what exec said (NotFound, PermissionDenied …).
absl::StatusOr<Child> Spawn(const SpawnOptions& options);

// pidfd_open(2). Errors: NotFound — no such process.
absl::StatusOr<UniqueFd> OpenPidfd(pid_t pid);

// pidfd_send_signal(2). Errors: NotFound — it has ended.
absl::Status SignalPidfd(const UniqueFd& pidfd, int signal);

// Start time of a process in clock ticks since boot (/proc/PID/stat, field 22): with the pid it is
// an identity that reuse cannot fake. Errors: NotFound.
absl::StatusOr<uint64_t> ProcessStartTime(pid_t pid);

}  // namespace gantry::sys
