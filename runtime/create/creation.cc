#include "runtime/create/creation.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "runtime/handover.h"
#include "runtime/hooks.h"
#include "runtime/id_maps.h"
#include "runtime/labels.h"

namespace gantry::runtime {
namespace {

using sys::ErrnoError;

oci::Spec Slim(oci::Spec spec) {
  spec.mounts = {};
  spec.annotations = {};
  spec.linux_.resources.reset();
  spec.linux_.devices = {};
  spec.linux_.sysctl = {};
  spec.linux_.masked_paths = {};
  spec.linux_.readonly_paths = {};
  if (spec.linux_.seccomp) spec.linux_.seccomp->syscalls = {};
  return spec;
}

}  // namespace

absl::Status Creation::ReadConfiguration() {
  RETURN_IF_ERROR(CheckContainerId(options_.id));
  if (options_.spec != nullptr) {
    RETURN_IF_ERROR(oci::CheckSpec(*options_.spec));
    spec_ = options_.spec;
    config_bytes_ = oci::WriteSpec(*spec_);
    return absl::OkStatus();
  }
  const std::string path = absl::StartsWith(options_.config_name, "/")
                               ? options_.config_name
                               : absl::StrCat(options_.bundle, "/", options_.config_name);
  ASSIGN_OR_RETURN(config_bytes_, sys::ReadFile(path));
  absl::StatusOr<oci::Spec> spec = oci::ParseSpec(config_bytes_);
  if (!spec.ok()) return Annotate(spec.status(), path);
  parsed_ = *std::move(spec);
  spec_ = &parsed_;
  return absl::OkStatus();
}

absl::Status Creation::CheckConfiguration() {
  if (!spec().process) return absl::InvalidArgumentError("process: required, but missing");
  if (spec().linux_.FindNamespace("mount") == nullptr) {
    return absl::InvalidArgumentError(
        "linux.namespaces: a mount namespace is required; without one the host's mounts would "
        "change");
  }
  RETURN_IF_ERROR(CheckLabels(*spec().process, spec().linux_.mount_label));
  if (spec().linux_.intel_rdt) {
    ASSIGN_OR_RETURN(std::string resctrl, FindResctrl());
    ASSIGN_OR_RETURN(record_.resctrl, PlanResctrl(*spec().linux_.intel_rdt, options_.id, resctrl));
  }
  ASSIGN_OR_RETURN(annotations_, ParseAnnotations(spec().annotations));
  if (annotations_.fail_unknown_syscall && spec().linux_.seccomp) {
    RETURN_IF_ERROR(CheckSyscallNames(*spec().linux_.seccomp));
  }
  return FindRoot();
}

absl::Status Creation::FindRoot() {
  const std::string& path = spec().root->path;
  record_.rootfs = absl::StartsWith(path, "/") ? path : absl::StrCat(options_.bundle, "/", path);
  struct stat info = {};
  if (::lstat(record_.rootfs.c_str(), &info) != 0) {
    return ErrnoError(errno,
                      absl::StrCat("root.path: open the root file system ", Quote(record_.rootfs)));
  }
  if (S_ISLNK(info.st_mode) && ::stat(record_.rootfs.c_str(), &info) != 0) {
    return ErrnoError(errno, absl::StrCat("root.path: follow the link ", Quote(record_.rootfs)));
  }
  if (!S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("root.path: ", Quote(record_.rootfs), " is not a directory"));
  }
  return absl::OkStatus();
}

absl::Status Creation::Claim() {
  RETURN_IF_ERROR(FAILPOINT("runtime.create.before_claim"));
  directory_ = ContainerDirectory(options_.state_root, options_.id);
  int made = ::mkdir(directory_.c_str(), 0700);
  if (made != 0 && errno == ENOENT) {
    RETURN_IF_ERROR(sys::MakeDirectories(options_.state_root, 0700));
    made = ::mkdir(directory_.c_str(), 0700);
  }
  if (made != 0 && errno == EEXIST) {
    return absl::AlreadyExistsError(
        absl::StrCat("container with given ID already exists: ", Quote(options_.id)));
  }
  if (made != 0)
    return ErrnoError(errno, absl::StrCat("make the state directory ", Quote(directory_)));
  claimed_ = true;
  FillRecord();
  RETURN_IF_ERROR(PlanCgroup());
  // What a crash leaves behind is found by this record.
  return SaveFirstRecord(directory_, record_, config_bytes_);
}

void Creation::FillRecord() {
  record_.id = options_.id;
  record_.bundle = options_.bundle;
  record_.owner = ::geteuid() == 0 ? "root" : absl::StrCat(::geteuid());
  record_.oci_version = spec().oci_version;
  record_.created = absl::Now();
  record_.boot_id = BootId();
  record_.annotations = spec().annotations;
  record_.start_by_others = options_.start_by_others;
  record_.no_new_keyring = options_.no_new_keyring;
  record_.has_poststart = !spec().hooks.poststart.empty();
  record_.has_poststop = !spec().hooks.poststop.empty();
  record_.cgroup_manager = options_.cgroup_manager;
  const oci::Namespace* pid = spec().linux_.FindNamespace("pid");
  record_.own_pid_namespace = pid != nullptr && pid->path.empty();
  record_.rootless = options_.rootless.value_or(::geteuid() != 0);
  record_.seccomp_cache = options_.seccomp_cache.empty()
                              ? absl::StrCat(options_.state_root, "/.cache/seccomp")
                              : options_.seccomp_cache;
}

absl::Status Creation::PrepareResctrl() {
  if (record_.resctrl.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(MakeResctrl(*spec().linux_.intel_rdt, record_.resctrl));
  resctrl_made_ = true;
  return absl::OkStatus();
}

absl::Status Creation::PrepareSeccomp() {
  if (!spec().linux_.seccomp) return absl::OkStatus();
  ASSIGN_OR_RETURN(filter_, CompileSeccomp(*spec().linux_.seccomp, record_.seccomp_cache));
  return absl::OkStatus();
}

absl::Status Creation::Finish(NewProcess& process) {
  record_.pid = process.pid();
  ASSIGN_OR_RETURN(record_.start_time, sys::ProcessStartTime(process.pid()));
  RETURN_IF_ERROR(SaveRecord(directory_, record_));
  if (console_.ok() && !options_.console_socket.empty()) {
    RETURN_IF_ERROR(Annotate(SendTo(options_.console_socket, "/dev/ptmx", console_.get()),
                             "hand over the terminal"));
    console_.Reset();
  }
  for (const std::string& socket : {options_.pidfd_socket, annotations_.pidfd_receiver}) {
    if (socket.empty()) continue;
    RETURN_IF_ERROR(
        Annotate(SendTo(socket, "pidfd", process.pidfd().get()), "hand over the pidfd"));
  }
  if (!options_.pid_file.empty()) RETURN_IF_ERROR(WritePidFile(options_.pid_file, process.pid()));
  RETURN_IF_ERROR(FAILPOINT("runtime.create.before_acknowledge"));
  RETURN_IF_ERROR(SendMessage(channel_.get(), Message::kGo));
  // Init cuts its tie to this process and then closes its end: until then we must not exit.
  if (options_.start_by_others) (void)ReceiveMessage(channel_.get());
  return absl::OkStatus();
}

void Creation::Undo() {
  UndoCgroup();
  if (resctrl_made_) (void)RemoveResctrl(record_.resctrl);
  if (!claimed_) return;
  (void)RemoveContainerDirectory(directory_);
  if (hooks_ran_) {
    (void)RunAllHooks(spec().hooks.poststop, "poststop", StateJson(Status::kStopped, 0),
                      plan_.hook_output);
  }
}

std::unique_ptr<Container::Impl> Creation::HandOver(NewProcess& process) {
  auto impl = std::make_unique<Container::Impl>();
  impl->directory = directory_;
  impl->record = record_;
  impl->cgroup = cgroup_;
  impl->pidfd = process.Release();
  impl->console = std::move(console_);
  impl->start_end = std::move(start_end_);
  impl->spec = Slim(options_.spec == nullptr ? std::move(parsed_) : *options_.spec);
  impl->slim = true;
  impl->filter = std::move(filter_);
  Lap("record");
  impl->timings = std::move(timings_);
  return impl;
}

// All that the new process will need.
absl::Status Creation::Prepare() {
  RETURN_IF_ERROR(ReadConfiguration());
  RETURN_IF_ERROR(CheckConfiguration());
  RETURN_IF_ERROR(PrepareNamespaces());
  RETURN_IF_ERROR(PrepareMounts());
  Lap("parse");
  // Nothing is changed up to here.
  ASSIGN_OR_RETURN(plan_.hook_output, OpenHookOutput(annotations_));
  RETURN_IF_ERROR(Claim());
  RETURN_IF_ERROR(PrepareStart());
  RETURN_IF_ERROR(PrepareNotify());
  Lap("claim");
  RETURN_IF_ERROR(PrepareCgroup());
  plan_.rootfs.cgroups = record_.cgroups;
  plan_.rootfs.cgroup_mode = record_.cgroup_mode;
  RETURN_IF_ERROR(PrepareResctrl());
  Lap("cgroup");
  RETURN_IF_ERROR(PrepareSeccomp());
  Lap("seccomp");
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Container::Impl>> Creation::Run() {
  absl::Cleanup undo = [this] { Undo(); };
  RETURN_IF_ERROR(Prepare());
  // Dropped before Undo runs: a cgroup is removed when nobody is in it.
  ASSIGN_OR_RETURN(NewProcess process, Clone());
  Lap("clone");
  RETURN_IF_ERROR(Converse(process));
  new_unit_.reset();  // Init is in its cgroup by now.
  last_ = NowMicroseconds();
  RETURN_IF_ERROR(Finish(process));
  std::move(undo).Cancel();
  return HandOver(process);
}

}  // namespace gantry::runtime
