#include "lib/sys/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace gantry::sys {
namespace {

constexpr size_t kChildStackBytes = 64 << 10;

// The child runs in our memory on a stack of its own and ends without unwinding it, which leaves
// ASan's shadow of that stack as it was; the next child would trip over it.
#define RUNS_IN_CHILD __attribute__((no_sanitize("address")))

// What the child needs, prepared before clone: it runs in our memory and may not allocate.
struct ChildPlan {
  const char* program;
  char* const* argv;
  char* const* envp;
  const char* working_directory;
  const std::pair<int, int>* descriptors;
  size_t descriptor_count;
  int scratch_base;  // First descriptor number above every target.
  bool new_session;
  bool new_process_group;
  bool die_with_parent;
  int error;  // Set by the child when it could not exec.
};

// Two rounds, so that a source that is also another's target is not overwritten.
RUNS_IN_CHILD bool MoveDescriptors(const ChildPlan& plan) {
  bool given[3] = {false, false, false};
  int scratch[16];
  for (size_t i = 0; i < plan.descriptor_count; ++i) {
    scratch[i] = ::fcntl(plan.descriptors[i].first, F_DUPFD_CLOEXEC, plan.scratch_base);
    if (scratch[i] < 0) return false;
  }
  const int null_device = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  int null_high = null_device < 0 ? -1 : ::fcntl(null_device, F_DUPFD_CLOEXEC, plan.scratch_base);
  for (size_t i = 0; i < plan.descriptor_count; ++i) {
    const int target = plan.descriptors[i].second;
    if (::dup2(scratch[i], target) < 0) return false;
    if (target < 3) given[target] = true;
  }
  for (int target = 0; target < 3; ++target) {
    if (!given[target] && ::dup2(null_high, target) < 0) return false;
  }
  return true;
}

RUNS_IN_CHILD bool MarkOthersCloseOnExec(const ChildPlan& plan) {
  // Everything above 2 that is not a target is marked; targets were made without the flag by dup2.
  int first = 3;
  for (;;) {
    int next = -1;
    for (size_t i = 0; i < plan.descriptor_count; ++i) {
      const int target = plan.descriptors[i].second;
      if (target >= first && (next < 0 || target < next)) next = target;
    }
    const unsigned last = next < 0 ? ~0u : static_cast<unsigned>(next) - 1;
    if (next != first &&
        ::syscall(SYS_close_range, static_cast<unsigned>(first), last, 1u << 2) != 0) {
      return false;
    }
    if (next < 0) return true;
    first = next + 1;
  }
}

RUNS_IN_CHILD void ResetSignals() {
  for (int signal = 1; signal < NSIG; ++signal) {
    struct sigaction action = {};
    action.sa_handler = SIG_DFL;
    ::sigaction(signal, &action, nullptr);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

RUNS_IN_CHILD int RunChild(void* argument) {
  ChildPlan& plan = *static_cast<ChildPlan*>(argument);
  ResetSignals();
  const bool ready = (!plan.die_with_parent || ::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0) &&
                     (!plan.new_session || ::setsid() >= 0) &&
                     (!plan.new_process_group || ::setpgid(0, 0) == 0) &&
                     (plan.working_directory == nullptr || ::chdir(plan.working_directory) == 0) &&
                     MoveDescriptors(plan) && MarkOthersCloseOnExec(plan);
  if (ready) ::execve(plan.program, plan.argv, plan.envp);
  plan.error = errno;
  ::_exit(127);
}

std::vector<char*> Pointers(const std::vector<std::string>& words) {
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// All signals blocked while the child shares our memory: a handler running there would corrupt us.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &saved_);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &saved_, nullptr); }

 private:
  sigset_t saved_;
};

ExitStatus FromSiginfo(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return {info.si_status, 0};
  return {128 + info.si_status, info.si_status};
}

}  // namespace

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), pidfd_(std::move(other.pidfd_)) {}

Child& Child::operator=(Child&& other) noexcept {
  if (this != &other) {
    KillAndReap();
    pid_ = std::exchange(other.pid_, 0);
    pidfd_ = std::move(other.pidfd_);
  }
  return *this;
}

Child::~Child() { KillAndReap(); }

absl::Status Child::Signal(int signal) const { return SignalPidfd(pidfd_, signal); }

absl::StatusOr<ExitStatus> Child::Wait(absl::Duration timeout) {
  if (pid_ <= 0) return absl::FailedPreconditionError("wait: no child is running");
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
    const int milliseconds =
        timeout == absl::InfiniteDuration()
            ? -1
            : static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(left) + 1, 1 << 30));
    pollfd poll_fd = {pidfd_.get(), POLLIN, 0};
    const int ready = ::poll(&poll_fd, 1, milliseconds);
    if (ready < 0 && errno != EINTR) return ErrnoError(errno, "wait for a child");
    if (ready > 0) break;
    if (timeout != absl::InfiniteDuration() && absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat("process ", pid_, " is still running after ",
                                                      absl::FormatDuration(timeout)));
    }
  }
  siginfo_t info = {};
  while (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd_.get()), &info,
                  WEXITED) != 0) {
    if (errno != EINTR) return ErrnoError(errno, absl::StrCat("reap process ", pid_));
  }
  Release();
  return FromSiginfo(info);
}

void Child::KillAndReap() {
  if (pid_ <= 0) return;
  (void)SignalPidfd(pidfd_, SIGKILL);
  (void)Wait();
}

void Child::Release() {
  pid_ = 0;
  pidfd_.Reset();
}

absl::StatusOr<Child> Spawn(const SpawnOptions& options) {
  if (options.argv.empty()) return absl::InvalidArgumentError("spawn: no program given");
  if (options.descriptors.size() > 16) {
    return absl::InvalidArgumentError("spawn: more than 16 descriptors");
  }
  const std::vector<char*> argv = Pointers(options.argv);
  const std::vector<char*> envp = Pointers(options.environment);
  int scratch_base = 3;
  for (const auto& [from, to] : options.descriptors) {
    scratch_base = std::max({scratch_base, from + 1, to + 1});
  }
  ChildPlan plan = {options.program.empty() ? argv[0] : options.program.c_str(),
                    argv.data(),
                    envp.data(),
                    options.working_directory.empty() ? nullptr : options.working_directory.c_str(),
                    options.descriptors.data(),
                    options.descriptors.size(),
                    scratch_base,
                    options.new_session,
                    options.new_process_group,
                    options.die_with_parent_thread,
                    0};
  void* stack = ::mmap(nullptr, kChildStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return ErrnoError(errno, "spawn: allocate a stack");
  int raw_pidfd = -1;
  int pid;
  int clone_error;
  {
    SignalsBlocked blocked;
    pid = ::clone(&RunChild, static_cast<char*>(stack) + kChildStackBytes,
                  CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &plan, &raw_pidfd);
    clone_error = errno;
  }
  ::munmap(stack, kChildStackBytes);
  if (pid < 0) return ErrnoError(clone_error, absl::StrCat("spawn '", options.argv[0], "'"));
  Child child(pid, UniqueFd(raw_pidfd));
  if (plan.error != 0) return ErrnoError(plan.error, absl::StrCat("run '", options.argv[0], "'"));
  return child;
}

absl::StatusOr<UniqueFd> OpenPidfd(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd.ok()) {
    if (errno == ESRCH) return absl::NotFoundError(absl::StrCat("process ", pid, " has ended"));
    return ErrnoError(errno, absl::StrCat("open process ", pid));
  }
  return fd;
}

absl::Status SignalPidfd(const UniqueFd& pidfd, int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0) == 0) {
    return absl::OkStatus();
  }
  if (errno == ESRCH) return absl::NotFoundError("the process has ended already");
  return ErrnoError(errno, absl::StrCat("send signal ", signal));
}

absl::StatusOr<uint64_t> ProcessStartTime(pid_t pid) {
  ASSIGN_OR_RETURN(std::string stat, ReadFile(absl::StrCat("/proc/", pid, "/stat"), 4096));
  // The name in parentheses may itself hold parentheses and spaces: count from the last one.
  const size_t end_of_name = stat.rfind(')');
  if (end_of_name == std::string::npos) return absl::InternalError("malformed /proc stat line");
  std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(stat).substr(end_of_name + 2), ' ');
  uint64_t start = 0;
  if (fields.size() < 20 || !absl::SimpleAtoi(fields[19], &start)) {
    return absl::InternalError("malformed /proc stat line");
  }
  return start;
}

}  // namespace gantry::sys
