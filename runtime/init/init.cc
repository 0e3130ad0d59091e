#include "runtime/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "runtime/hooks.h"
#include "runtime/init/channel.h"
#include "runtime/init/stdio.h"
#include "runtime/kernel.h"

namespace gantry::runtime {
namespace {

using sys::ErrnoError;
using sys::UniqueFd;

// Steps and their durations as "name=µs;…", for the creator.
class Stopwatch {
 public:
  Stopwatch() : last_(Now()) {}
  void Lap(const char* step) {
    const int64_t now = Now();
    absl::StrAppend(&text_, step, "=", (now - last_) / 1000, ";");
    last_ = now;
  }
  const std::string& text() const { return text_; }

 private:
  static int64_t Now() {
    timespec time = {};
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    return int64_t{time.tv_sec} * 1000000000 + time.tv_nsec;
  }
  int64_t last_;
  std::string text_;
};

void ResetSignals() {
  for (int signal = 1; signal < NSIG; ++signal) {
    struct sigaction action = {};
    action.sa_handler = SIG_DFL;
    ::sigaction(signal, &action, nullptr);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

absl::Status DieWithCreator() {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
    return ErrnoError(errno, "tie this process to its creator");
  return absl::OkStatus();
}

// A session keyring of the container's own, or the one it has: ours would be readable from inside.
absl::Status NewKeyring(const std::string& id) {
  const std::string name = absl::StrCat("_ses.", id);
  if (::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.c_str()) < 0 && errno != ENOSYS &&
      errno != EDQUOT) {
    return ErrnoError(errno, "make a session keyring");
  }
  return absl::OkStatus();
}

absl::Status AwaitGo(int channel) {
  ASSIGN_OR_RETURN(Received received, ReceiveMessage(channel));
  if (received.kind == Message::kGo) return absl::OkStatus();
  return absl::InternalError("unexpected message from the creator");
}

// Of the container's own ids, 0 is what owns its namespaces.
absl::Status BecomeNamespaceRoot() {
  if (::syscall(SYS_setresgid, 0, 0, 0) != 0 || ::syscall(SYS_setresuid, 0, 0, 0) != 0) {
    return ErrnoError(errno, "become root of the user namespace; is id 0 mapped?");
  }
  return absl::OkStatus();
}

absl::Status JoinNamespaces(std::vector<JoinedNamespace>& joined) {
  // The user namespace first: it gives the right to join the others. Mount last: paths change with
  // it.
  for (const int pass : {CLONE_NEWUSER, 0, CLONE_NEWNS}) {
    for (JoinedNamespace& ns : joined) {
      const bool now =
          pass == 0 ? ns.type != CLONE_NEWUSER && ns.type != CLONE_NEWNS : ns.type == pass;
      if (!now) continue;
      if (::setns(ns.fd.get(), ns.type) != 0) return ErrnoError(errno, "join a namespace");
      if (ns.type == CLONE_NEWUSER) RETURN_IF_ERROR(BecomeNamespaceRoot());
    }
  }
  joined.clear();
  return absl::OkStatus();
}

// Where the user namespace was joined, the rest is made in it, and a pid namespace only takes
// children: this process makes the init, a child of our creator, and is done.
absl::Status MakeLateNamespaces(InitPlan& plan) {
  if (plan.late_namespaces == 0) return absl::OkStatus();
  if (::unshare(static_cast<int>(plan.late_namespaces)) != 0)
    return ErrnoError(errno, "make namespaces");
  int raw_pidfd = -1;
  const pid_t pid = kernel::Clone(CLONE_PARENT, &raw_pidfd, 0 /* as this one */);
  if (pid < 0) return ErrnoError(errno, "clone the init");
  if (pid == 0) {
    if (::setsid() < 0) return ErrnoError(errno, "start a session");
    return DieWithCreator();
  }
  UniqueFd pidfd(raw_pidfd);
  const absl::Status sent =
      SendMessage(plan.channel, Message::kPid, absl::StrCat(pid), pidfd.get());
  ::_exit(sent.ok() ? 0 : 1);
}

std::string StateFor(const InitPlan& plan, absl::string_view status) {
  // What the host's /proc calls this process; without it (after pivot) hooks see the container's
  // pid.
  char pid[32] = {};
  if (::readlink("/proc/self", pid, sizeof pid - 1) < 0) pid[0] = '0';
  return absl::StrReplaceAll(plan.state_template, {{"@PID@", pid}, {"@STATUS@", status}});
}

absl::Status SetNames(const oci::Spec& spec) {
  if (!spec.hostname.empty() && ::sethostname(spec.hostname.data(), spec.hostname.size()) != 0) {
    return ErrnoError(errno, "set the hostname");
  }
  if (!spec.domainname.empty() &&
      ::setdomainname(spec.domainname.data(), spec.domainname.size()) != 0) {
    return ErrnoError(errno, "set the domainname");
  }
  return absl::OkStatus();
}

absl::Status SetUpFiles(InitPlan& plan, Stopwatch& watch) {
  Rootfs rootfs(plan.rootfs);
  RETURN_IF_ERROR(rootfs.Attach());
  watch.Lap("root");
  RETURN_IF_ERROR(rootfs.Populate());
  watch.Lap("mounts");
  RETURN_IF_ERROR(rootfs.WriteSysctls());
  UniqueFd slave;
  if (plan.spec->process->terminal) {
    ASSIGN_OR_RETURN(Terminal terminal, OpenTerminal(rootfs.root(), plan.terminal_size));
    RETURN_IF_ERROR(rootfs.MountConsole(terminal.slave));
    RETURN_IF_ERROR(SendMessage(plan.channel, Message::kConsole, "", terminal.master.get()));
    slave = std::move(terminal.slave);
  }
  const oci::Hooks& hooks = plan.spec->hooks;
  if (!hooks.prestart.empty() || !hooks.create_runtime.empty()) {
    RETURN_IF_ERROR(SendMessage(plan.channel, Message::kHooks));
    RETURN_IF_ERROR(AwaitGo(plan.channel));
  }
  if (!hooks.create_container.empty()) {
    RETURN_IF_ERROR(RunHooks(hooks.create_container, "createContainer", StateFor(plan, "creating"),
                             plan.hook_output));
  }
  RETURN_IF_ERROR(rootfs.Cover());
  watch.Lap("cover");
  // The host's /proc is still here.
  plan.state_template = StateFor(plan, "created");
  RETURN_IF_ERROR(rootfs.Enter());
  watch.Lap("pivot");
  return plan.spec->process->terminal ? InstallTerminal(slave, plan.spec->process->user)
                                      : InstallStdio(plan.stdio, plan.spec->process->user.uid);
}

absl::Status DeliverListener(const InitPlan& plan, const UniqueFd& listener) {
  if (!listener.ok()) return absl::OkStatus();
  RETURN_IF_ERROR(SendMessage(plan.channel, Message::kSeccomp, "", listener.get()));
  return AwaitGo(plan.channel);
}

absl::Status SetUp(InitPlan& plan, ProcessSetup& process, Stopwatch& watch) {
  ResetSignals();
  RETURN_IF_ERROR(DieWithCreator());
  if (::setsid() < 0 && errno != EPERM) return ErrnoError(errno, "start a session");
  if (plan.awaits_attachment) RETURN_IF_ERROR(AwaitGo(plan.channel));
  RETURN_IF_ERROR(JoinCgroups(plan.cgroups.tasks));
  plan.cgroups = {};
  watch.Lap("join");
  if (plan.new_user_namespace) {
    RETURN_IF_ERROR(SendMessage(plan.channel, Message::kMapMe));
    RETURN_IF_ERROR(AwaitGo(plan.channel));
    RETURN_IF_ERROR(BecomeNamespaceRoot());
    RETURN_IF_ERROR(DieWithCreator());
  }
  RETURN_IF_ERROR(process.Label());
  RETURN_IF_ERROR(JoinNamespaces(plan.joined));
  RETURN_IF_ERROR(MakeLateNamespaces(plan));
  if (plan.new_cgroup_namespace && ::unshare(CLONE_NEWCGROUP) != 0) {
    return ErrnoError(errno, "make a cgroup namespace");
  }
  if (!plan.no_new_keyring) RETURN_IF_ERROR(NewKeyring(plan.id));
  RETURN_IF_ERROR(SetNames(*plan.spec));
  watch.Lap("namespaces");
  RETURN_IF_ERROR(SetUpFiles(plan, watch));
  RETURN_IF_ERROR(process.Limit());
  RETURN_IF_ERROR(process.Become());
  RETURN_IF_ERROR(DieWithCreator());
  RETURN_IF_ERROR(process.FindProgram());
  UniqueFd listener;
  RETURN_IF_ERROR(process.Seal(&listener));
  watch.Lap("identity");
  return DeliverListener(plan, listener);
}

// What this process inherited beyond what its program gets, and what waiting needs, is closed now:
// a created container may wait for long, and whoever looks at its descriptors sees nothing of the
// host.
void CloseOthers(const InitPlan& plan) {
  const unsigned first = 3 + static_cast<unsigned>(plan.process.kept_descriptors);
  const unsigned kept = static_cast<unsigned>(plan.start_socket);
  if (kept > first) kernel::CloseRange(first, kept - 1, 0);
  kernel::CloseRange(std::max(first, kept + 1), ~0u, 0);
  ::close(plan.channel);  // Where a gap among the preserved ones put it below.
}

// Waits for Start. The answer goes over the descriptor that Start sends: its closing by execve is
// "started".
absl::StatusOr<UniqueFd> AwaitStart(const InitPlan& plan) {
  for (;;) {
    absl::StatusOr<Received> received = ReceiveMessage(plan.start_socket);
    if (received.ok() && received->kind == Message::kGo && received->fd.ok()) {
      return std::move(received->fd);
    }
    // A datagram of something else is ignored; the end of a pair means that the only starter is
    // gone.
    if (!received.ok() && !plan.start_by_others) return received.status();
  }
}

}  // namespace

void RunInit(InitPlan& plan) {
  Stopwatch watch;
  ProcessSetup process(plan.process);
  absl::Status status = SetUp(plan, process, watch);
  if (!status.ok()) {
    (void)SendMessage(plan.channel, Message::kError, EncodeStatus(status));
    ::_exit(1);
  }
  if (!SendMessage(plan.channel, Message::kReady, watch.text()).ok()) ::_exit(1);
  // Only once the creator has recorded this pid may this process outlive it.
  if (!AwaitGo(plan.channel).ok()) ::_exit(1);
  if (plan.start_by_others) ::prctl(PR_SET_PDEATHSIG, 0);
  CloseOthers(plan);  // The channel among them: its end tells the creator that it may go.

  absl::StatusOr<UniqueFd> starter = AwaitStart(plan);
  if (!starter.ok()) ::_exit(1);
  ::prctl(PR_SET_PDEATHSIG, 0);
  ::close(plan.start_socket);
  if (!plan.spec->hooks.start_container.empty()) {
    status = RunHooks(plan.spec->hooks.start_container, "startContainer", plan.state_template,
                      plan.hook_output);
  }
  if (status.ok()) status = process.Execute();
  (void)SendMessage(starter->get(), Message::kError, EncodeStatus(status));
  ::_exit(1);
}

namespace {

absl::Status SetUpExec(ExecPlan& plan, ProcessSetup& process) {
  ResetSignals();
  RETURN_IF_ERROR(DieWithCreator());
  if (::setsid() < 0 && errno != EPERM) return ErrnoError(errno, "start a session");
  RETURN_IF_ERROR(SetCpuAffinity(plan.cpu_affinity_initial));
  if (plan.awaits_attachment) RETURN_IF_ERROR(AwaitGo(plan.channel));
  RETURN_IF_ERROR(JoinCgroups(plan.cgroups.tasks));
  plan.cgroups = {};
  RETURN_IF_ERROR(SetCpuAffinity(plan.cpu_affinity_final));
  RETURN_IF_ERROR(process.Label());
  if (!plan.keyring.empty()) RETURN_IF_ERROR(NewKeyring(plan.keyring));
  if (plan.namespaces != 0 && ::setns(plan.init_pidfd.get(), plan.namespaces) != 0) {
    return ErrnoError(errno, "join the namespaces of the container");
  }
  plan.init_pidfd.Reset();
  if (plan.second_child) {
    int raw_pidfd = -1;
    const pid_t pid = kernel::Clone(CLONE_PARENT, &raw_pidfd, 0 /* as this one */);
    if (pid < 0) return ErrnoError(errno, "clone the process");
    if (pid > 0) {
      const absl::Status sent =
          SendMessage(plan.channel, Message::kPid, absl::StrCat(pid), raw_pidfd);
      ::_exit(sent.ok() ? 0 : 1);
    }
    RETURN_IF_ERROR(DieWithCreator());
    if (::setsid() < 0 && errno != EPERM) return ErrnoError(errno, "start a session");
  }
  if ((plan.namespaces & CLONE_NEWUSER) != 0) RETURN_IF_ERROR(BecomeNamespaceRoot());
  if (plan.terminal) {
    UniqueFd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root.ok()) return ErrnoError(errno, "open the container's root");
    ASSIGN_OR_RETURN(Terminal terminal, OpenTerminal(root, plan.terminal_size));
    RETURN_IF_ERROR(SendMessage(plan.channel, Message::kConsole, "", terminal.master.get()));
    RETURN_IF_ERROR(InstallTerminal(terminal.slave, plan.process.process->user));
  } else {
    RETURN_IF_ERROR(InstallStdio(plan.stdio, plan.process.process->user.uid));
  }
  RETURN_IF_ERROR(process.Limit());
  RETURN_IF_ERROR(process.Become());
  RETURN_IF_ERROR(DieWithCreator());
  RETURN_IF_ERROR(process.FindProgram());
  UniqueFd listener;
  RETURN_IF_ERROR(process.Seal(&listener));
  if (listener.ok()) {
    RETURN_IF_ERROR(SendMessage(plan.channel, Message::kSeccomp, "", listener.get()));
    RETURN_IF_ERROR(AwaitGo(plan.channel));
  }
  // Recorded by the creator before it may live alone.
  RETURN_IF_ERROR(SendMessage(plan.channel, Message::kReady));
  RETURN_IF_ERROR(AwaitGo(plan.channel));
  if (::prctl(PR_SET_PDEATHSIG, 0) != 0) return ErrnoError(errno, "part from the creator");
  return process.Execute();
}

}  // namespace

void RunExec(ExecPlan& plan) {
  ProcessSetup process(plan.process);
  const absl::Status status = SetUpExec(plan, process);
  (void)SendMessage(plan.channel, Message::kError, EncodeStatus(status));
  ::_exit(1);
}

}  // namespace gantry::runtime
