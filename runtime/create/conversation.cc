#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/json/json.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/create/creation.h"
#include "runtime/handover.h"
#include "runtime/hooks.h"
#include "runtime/id_maps.h"
#include "runtime/kernel.h"
#include "runtime/namespaces.h"
#include "runtime/net_devices.h"

namespace gantry::runtime {

using sys::ErrnoError;
using sys::UniqueFd;

absl::StatusOr<NewProcess> Creation::Clone() {
  RETURN_IF_ERROR(FAILPOINT("runtime.create.before_clone"));
  if (!cgroup_.empty()) {
    ASSIGN_OR_RETURN(plan_.cgroups, cgroup_.OpenForJoining());
  }
  PrepareProcess();
  ChildNamespaces namespaces;
  if (joined_pid_namespace_.ok()) RETURN_IF_ERROR(namespaces.Enter(joined_pid_namespace_));
  if ((clone_flags_ & CLONE_NEWTIME) != 0) {
    clone_flags_ &= ~uint64_t{CLONE_NEWTIME};
    RETURN_IF_ERROR(namespaces.NewTime(spec().linux_.time_offsets));
  }
  // An undumpable child's id maps are root's to write: without privileges it has to wait a little.
  const bool dumpable = plan_.new_user_namespace && ::geteuid() != 0;
  if (dumpable) ::prctl(PR_SET_DUMPABLE, 1);
  int raw_pidfd = -1;
  pid_t pid = kernel::Clone(clone_flags_, &raw_pidfd, SIGCHLD, plan_.cgroups.into.get());
  if (pid < 0 && CanAttachToUnit(record_, errno)) {
    plan_.awaits_attachment = true;
    pid = kernel::Clone(clone_flags_, &raw_pidfd, SIGCHLD);
  }
  const int error = errno;
  if (pid == 0) {
    channel_.Reset();
    start_end_.Reset();
    RunInit(plan_);
  }
  if (dumpable) ::prctl(PR_SET_DUMPABLE, 0);
  if (pid < 0) return ErrnoError(error, "clone the container's init");
  child_channel_.Reset();
  child_start_.Reset();
  NewProcess process(pid, UniqueFd(raw_pidfd));
  if (!plan_.awaits_attachment) return process;
  RETURN_IF_ERROR(AttachToUnit(record_, pid));
  RETURN_IF_ERROR(SendMessage(channel_.get(), Message::kGo));
  return process;
}

std::string Creation::StateJson(Status status, pid_t pid) const {
  return WriteState(MakeState(record_, status, pid));
}

std::string Creation::StateTemplate() const {
  const oci::Hooks& hooks = spec().hooks;
  if (hooks.create_container.empty() && hooks.start_container.empty()) return "";
  json::Writer writer;
  writer.BeginObject();
  writer.Member("ociVersion", record_.oci_version);
  writer.Member("id", record_.id);
  writer.Key("pid");
  writer.WriteRaw("@PID@");
  writer.Key("status");
  writer.WriteRaw("\"@STATUS@\"");
  writer.Member("bundle", record_.bundle);
  writer.Member("rootfs", record_.rootfs);
  if (!record_.annotations.empty()) writer.Member("annotations", record_.annotations);
  writer.EndObject();
  return writer.Take();
}

absl::Status Creation::SetUpFromOutside(const NewProcess& process) {
  if (const auto& score = spec().process->oom_score_adj) {
    absl::Status status = sys::WriteControlFile(
        absl::StrCat("/proc/", process.pid(), "/oom_score_adj"), absl::StrCat(*score));
    // Lowering it takes CAP_SYS_RESOURCE, which may not be there (SECURITY-RULES 44).
    if (!status.ok() && status.code() != absl::StatusCode::kPermissionDenied) {
      return Annotate(status, "process.oomScoreAdj");
    }
  }
  RETURN_IF_ERROR(JoinResctrl(record_.resctrl, process.pid()));
  if (spec().linux_.net_devices.empty()) return absl::OkStatus();
  const std::string& path = spec().linux_.FindNamespace("network")->path;
  ASSIGN_OR_RETURN(
      UniqueFd network,
      sys::Open(path.empty() ? absl::StrCat("/proc/", process.pid(), "/ns/net") : path, O_RDONLY));
  return MoveNetDevices(spec().linux_.net_devices, network);
}

absl::Status Creation::Answer(NewProcess& process, Received received) {
  switch (received.kind) {
    case Message::kMapMe:
      RETURN_IF_ERROR(
          WriteIdMaps(process.pid(), spec().linux_.uid_mappings, spec().linux_.gid_mappings));
      return SendMessage(channel_.get(), Message::kGo);
    case Message::kPid: {
      pid_t pid = 0;
      if (!absl::SimpleAtoi(received.payload, &pid) || !received.fd.ok()) {
        return absl::InternalError("the new process sent no pid");
      }
      process.Replace(pid, std::move(received.fd));
      return SetUpFromOutside(process);
    }
    case Message::kConsole:
      console_ = std::move(received.fd);
      return absl::OkStatus();
    case Message::kHooks: {
      hooks_ran_ = true;
      const std::string state = StateJson(Status::kCreating, process.pid());
      RETURN_IF_ERROR(RunHooks(spec().hooks.prestart, "prestart", state, plan_.hook_output));
      RETURN_IF_ERROR(
          RunHooks(spec().hooks.create_runtime, "createRuntime", state, plan_.hook_output));
      return SendMessage(channel_.get(), Message::kGo);
    }
    case Message::kSeccomp:
      RETURN_IF_ERROR(SendListener(*spec().linux_.seccomp, record_.oci_version, process.pid(),
                                   StateJson(Status::kCreating, process.pid()), received.fd));
      return SendMessage(channel_.get(), Message::kGo);
    default:
      return absl::InternalError("unexpected message from the new process");
  }
}

absl::Status Creation::Converse(NewProcess& process) {
  // With late namespaces the init is yet to come.
  if (plan_.late_namespaces == 0) RETURN_IF_ERROR(SetUpFromOutside(process));
  for (;;) {
    absl::StatusOr<Received> received = ReceiveMessage(channel_.get());
    if (!received.ok()) {
      return absl::InternalError(
          "the container's init ended while it was being set up; was it killed for lack of "
          "memory?");
    }
    if (received->kind == Message::kError) return DecodeStatus(received->payload);
    if (received->kind == Message::kReady) {
      for (Timing& timing : ParseTimings(received->payload)) timings_.push_back(std::move(timing));
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(Answer(process, *std::move(received)));
  }
}

}  // namespace gantry::runtime
