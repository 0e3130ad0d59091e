#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/container_impl.h"
#include "runtime/handover.h"
#include "runtime/init/channel.h"
#include "runtime/init/init.h"
#include "runtime/init/mount_plan.h"
#include "runtime/kernel.h"
#include "runtime/labels.h"
#include "runtime/namespaces.h"
#include "runtime/new_process.h"
#include "runtime/timing.h"
#include "runtime/unit.h"

namespace gantry::runtime {
namespace {

using sys::ErrnoError;
using sys::UniqueFd;

// The v2 cgroup a process is in.
absl::StatusOr<UniqueFd> CgroupOfProcess(pid_t pid) {
  ASSIGN_OR_RETURN(std::string text, sys::ReadFile(absl::StrCat("/proc/", pid, "/cgroup")));
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    if (!absl::ConsumePrefix(&line, "0::")) continue;
    for (const char* mount_point : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
      if (!sys::Exists(absl::StrCat(mount_point, "/cgroup.procs"))) continue;
      return sys::Open(absl::StrCat(mount_point, line), O_RDONLY | O_DIRECTORY);
    }
  }
  return absl::NotFoundError("the process is in no v2 cgroup");
}

oci::Process WithDefaults(oci::Process process, const oci::Process& container) {
  if (!process.capabilities) process.capabilities = container.capabilities;
  if (process.apparmor_profile.empty()) process.apparmor_profile = container.apparmor_profile;
  if (process.selinux_label.empty()) process.selinux_label = container.selinux_label;
  if (process.rlimits.empty()) process.rlimits = container.rlimits;
  if (!process.oom_score_adj) process.oom_score_adj = container.oom_score_adj;
  if (!process.user.umask) process.user.umask = container.user.umask;
  process.no_new_privileges = process.no_new_privileges || container.no_new_privileges;
  return process;
}

// The container's cgroup, or the directories below it that --cgroup names.
absl::StatusOr<cgroup::Cgroup> CgroupFor(const ExecOptions& options,
                                         const cgroup::Cgroup& container) {
  if (options.cgroups.empty()) return container;
  std::vector<cgroup::Directory> directories = container.directories();
  for (const auto& [controller, below] : options.cgroups) {
    bool known = controller.empty();
    for (cgroup::Directory& directory : directories) {
      if (!controller.empty() && directory.controllers != controller) continue;
      directory.path = absl::StrCat(directory.path, CleanPath(below));
      known = true;
    }
    if (!known) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--cgroup: no hierarchy of this machine has exactly the controllers ", Quote(controller),
          container.mode() == cgroup::Mode::kV2 ? "; cgroup v2 has one for all: give the path alone"
                                                : ""));
    }
  }
  return cgroup::Cgroup(container.mode(), std::move(directories));
}

// One exec: the child's plan and the talk with it. Used once.
class Execution {
 public:
  Execution(const ExecOptions& asked, Container::Impl& container, Status status)
      : options_(asked), container_(container), status_(status) {}

  absl::StatusOr<ExecedProcess> Run();

 private:
  absl::Status Prepare();
  void PlanNamespaces();
  void PlanProcess();
  absl::StatusOr<NewProcess> Clone();
  absl::Status Converse(NewProcess& process);
  absl::Status Answer(NewProcess& process, Received received);
  absl::Status Finish(const NewProcess& process);

  const oci::Spec& spec() const { return *container_.spec; }

  ExecOptions options_;
  Container::Impl& container_;
  const Status status_;
  ExecPlan plan_;
  UniqueFd pid_namespace_of_;  // A pidfd, when children are to be born into its pid namespace.
  UniqueFd channel_, child_channel_;
  UniqueFd console_;
  bool ready_ = false;
};

absl::Status Execution::Prepare() {
  if (options_.inherit_defaults && spec().process)
    options_.process = WithDefaults(options_.process, *spec().process);
  RETURN_IF_ERROR(oci::CheckProcess(options_.process, "process"));
  RETURN_IF_ERROR(CheckLabels(options_.process, ""));
  if (spec().linux_.seccomp && !container_.filter) {
    ASSIGN_OR_RETURN(container_.filter,
                     CompileSeccomp(*spec().linux_.seccomp, container_.record.seccomp_cache));
  }
  if (!container_.cgroup.empty()) {
    ASSIGN_OR_RETURN(cgroup::Cgroup cgroup, CgroupFor(options_, container_.cgroup));
    ASSIGN_OR_RETURN(plan_.cgroups, cgroup.OpenForJoining());
  }
  PlanNamespaces();
  PlanProcess();
  ASSIGN_OR_RETURN(auto pair, MakePair());
  channel_ = std::move(pair.first);
  child_channel_ = std::move(pair.second);
  plan_.channel = child_channel_.get();
  return absl::OkStatus();
}

void Execution::PlanNamespaces() {
  for (const oci::Namespace& ns : spec().linux_.namespaces)
    plan_.namespaces |= NamespaceFlag(ns.type);
  const bool user_namespace = (plan_.namespaces & CLONE_NEWUSER) != 0;
  plan_.process.user_namespace = user_namespace;
  plan_.second_child = user_namespace && (plan_.namespaces & CLONE_NEWPID) != 0;
  if (!plan_.second_child && (plan_.namespaces & CLONE_NEWPID) != 0) {
    plan_.namespaces &= ~CLONE_NEWPID;
    pid_namespace_of_.Reset(::fcntl(container_.pidfd.get(), F_DUPFD_CLOEXEC, 3));
  }
  plan_.init_pidfd.Reset(::fcntl(container_.pidfd.get(), F_DUPFD_CLOEXEC, 3));
}

void Execution::PlanProcess() {
  if (const auto& affinity = options_.process.exec_cpu_affinity) {
    plan_.cpu_affinity_initial = affinity->initial;
    plan_.cpu_affinity_final = affinity->final;
  }
  plan_.keyring = container_.record.no_new_keyring ? "" : container_.record.id;
  plan_.terminal = options_.process.terminal;
  plan_.stdio = options_.stdio;
  plan_.terminal_size = SizeFor(options_.terminal_size, options_.process);
  plan_.process.process = &options_.process;
  plan_.process.linux_ = &spec().linux_;
  plan_.process.filter = spec().linux_.seccomp ? &*container_.filter : nullptr;
  plan_.process.kept_descriptors = options_.preserve_fds;
}

absl::StatusOr<NewProcess> Execution::Clone() {
  ChildNamespaces namespaces;
  if (pid_namespace_of_.ok()) {
    RETURN_IF_ERROR(Annotate(namespaces.Enter(pid_namespace_of_), "enter the container"));
  }
  int raw_pidfd = -1;
  pid_t pid = kernel::Clone(0, &raw_pidfd, SIGCHLD, plan_.cgroups.into.get());
  const bool full = pid < 0 && (errno == EBUSY || errno == EOPNOTSUPP);
  if (full && plan_.cgroups.into.ok() && options_.cgroups.empty()) {
    // The container enabled controllers below its cgroup, which takes no processes any more: where
    // its init went there is room.
    absl::StatusOr<UniqueFd> other = CgroupOfProcess(container_.record.pid);
    if (other.ok()) pid = kernel::Clone(0, &raw_pidfd, SIGCHLD, other->get());
  }
  if (pid < 0 && options_.cgroups.empty() && CanAttachToUnit(container_.record, errno)) {
    plan_.awaits_attachment = true;
    pid = kernel::Clone(0, &raw_pidfd, SIGCHLD);
  }
  const int error = errno;
  if (pid == 0) {
    channel_.Reset();
    RunExec(plan_);
  }
  if (pid < 0 && full && !options_.cgroups.empty()) {
    return absl::FailedPreconditionError(
        "--cgroup: the cgroup has controllers enabled for cgroups below it, and so takes no "
        "processes itself; name one that has none below");
  }
  if (pid < 0) return ErrnoError(error, "clone the process");
  child_channel_.Reset();
  NewProcess process(pid, UniqueFd(raw_pidfd));
  if (!plan_.awaits_attachment) return process;
  RETURN_IF_ERROR(AttachToUnit(container_.record, pid));
  RETURN_IF_ERROR(SendMessage(channel_.get(), Message::kGo));
  return process;
}

absl::Status Execution::Answer(NewProcess& process, Received received) {
  switch (received.kind) {
    case Message::kError:
      return DecodeStatus(received.payload);
    case Message::kPid: {
      pid_t second = 0;
      if (!absl::SimpleAtoi(received.payload, &second) || !received.fd.ok()) {
        return absl::InternalError("the new process sent no pid");
      }
      process.Replace(second, std::move(received.fd));
      return absl::OkStatus();
    }
    case Message::kConsole:
      console_ = std::move(received.fd);
      return absl::OkStatus();
    case Message::kSeccomp:
      RETURN_IF_ERROR(SendListener(*spec().linux_.seccomp, spec().oci_version, process.pid(),
                                   WriteState(container_.MakeState(status_)), received.fd));
      return SendMessage(channel_.get(), Message::kGo);
    case Message::kReady:
      return Finish(process);
    default:
      return absl::InternalError("unexpected message from the new process");
  }
}

absl::Status Execution::Finish(const NewProcess& process) {
  if (console_.ok() && !options_.console_socket.empty()) {
    RETURN_IF_ERROR(Annotate(SendTo(options_.console_socket, "/dev/ptmx", console_.get()),
                             "hand over the terminal"));
    console_.Reset();
  }
  if (!options_.pidfd_socket.empty()) {
    RETURN_IF_ERROR(Annotate(SendTo(options_.pidfd_socket, "pidfd", process.pidfd().get()),
                             "hand over the pidfd"));
  }
  if (!options_.pid_file.empty()) RETURN_IF_ERROR(WritePidFile(options_.pid_file, process.pid()));
  ready_ = true;
  return SendMessage(channel_.get(), Message::kGo);
}

absl::Status Execution::Converse(NewProcess& process) {
  if (const auto& score = options_.process.oom_score_adj) {
    // Lowering it takes CAP_SYS_RESOURCE, which may not be there (SECURITY-RULES 44).
    (void)sys::WriteControlFile(absl::StrCat("/proc/", process.pid(), "/oom_score_adj"),
                                absl::StrCat(*score));
  }
  RETURN_IF_ERROR(JoinResctrl(container_.record.resctrl, process.pid()));
  for (;;) {
    absl::StatusOr<Received> received = ReceiveMessage(channel_.get());
    if (received.ok()) {
      RETURN_IF_ERROR(Answer(process, *std::move(received)));
      continue;
    }
    if (ready_) return absl::OkStatus();  // Closed by execve.
    return absl::InternalError("the new process ended while it was being set up");
  }
}

absl::StatusOr<ExecedProcess> Execution::Run() {
  RETURN_IF_ERROR(Prepare());
  ASSIGN_OR_RETURN(NewProcess process, Clone());
  RETURN_IF_ERROR(Converse(process));
  ExecedProcess result;
  result.console = std::move(console_);
  result.pid = process.pid();
  result.pidfd = process.Release();
  return result;
}

}  // namespace

absl::StatusOr<ExecedProcess> Container::Exec(const ExecOptions& options) {
  const int64_t began = NowMicroseconds();
  RETURN_IF_ERROR(FAILPOINT("runtime.exec.before_exec"));
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (status == Status::kStopped)
    return absl::FailedPreconditionError("cannot exec in a stopped container");
  if (status == Status::kPaused && !options.ignore_paused) {
    return absl::FailedPreconditionError(
        "cannot exec in a paused container (use --ignore-paused to override)");
  }
  RETURN_IF_ERROR(impl_->LoadSpec());
  Execution execution(options, *impl_, status);
  ASSIGN_OR_RETURN(ExecedProcess process, execution.Run());
  process.timings.push_back({"exec", NowMicroseconds() - began});
  return process;
}

}  // namespace gantry::runtime
