#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "lib/sys/socket.h"
#include "runtime/hooks.h"
#include "runtime/id_maps.h"
#include "runtime/init/channel.h"
#include "runtime/init/init.h"
#include "runtime/init/mount_plan.h"
#include "runtime/kernel.h"
#include "runtime/net_devices.h"
#include "runtime/record.h"
#include "runtime/runtime.h"
#include "runtime/seccomp.h"
#include "runtime/user_namespace.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace gantry::runtime {
namespace {

using sys::ErrnoError;
using sys::UniqueFd;

constexpr size_t kMaxIdBytes = 1024;
constexpr absl::Duration kKillTimeout = absl::Seconds(10);

struct NamespaceType {
  const char* name;
  int flag;
};
constexpr NamespaceType kNamespaceTypes[] = {{"user", CLONE_NEWUSER},     {"mount", CLONE_NEWNS},
                                             {"pid", CLONE_NEWPID},       {"network", CLONE_NEWNET},
                                             {"ipc", CLONE_NEWIPC},       {"uts", CLONE_NEWUTS},
                                             {"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME}};

int NamespaceFlag(absl::string_view name) {
  for (const NamespaceType& type : kNamespaceTypes) {
    if (name == type.name) return type.flag;
  }
  return 0;
}

int64_t NowMicroseconds() {
  timespec time = {};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return int64_t{time.tv_sec} * 1000000 + time.tv_nsec / 1000;
}

std::string Quote(absl::string_view text) {
  return absl::StrCat("'", EscapeForTerminal(text), "'");
}

absl::Status DoesNotExist(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("container ", Quote(id), " does not exist"));
}

std::string ContainerDirectory(const std::string& state_root, const std::string& id) {
  return absl::StrCat(state_root, "/", id);
}

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> MakePair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoError(errno, "make a socket pair");
  }
  return std::make_pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

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

// A child that is not handed over yet.
class NewProcess {
 public:
  NewProcess(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  NewProcess(NewProcess&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)), pidfd_(std::move(other.pidfd_)) {}
  NewProcess& operator=(NewProcess&&) = delete;
  ~NewProcess() {
    if (pid_ <= 0) return;
    (void)sys::SignalPidfd(pidfd_, SIGKILL);
    Reap(pidfd_);
  }
  pid_t pid() const { return pid_; }
  const UniqueFd& pidfd() const { return pidfd_; }
  // The first child ended after it made the real one.
  void Replace(pid_t pid, UniqueFd pidfd) {
    Reap(pidfd_);
    pid_ = pid;
    pidfd_ = std::move(pidfd);
  }
  UniqueFd Release() {
    pid_ = 0;
    return std::move(pidfd_);
  }

 private:
  pid_t pid_;
  UniqueFd pidfd_;
};

absl::Status WritePidFile(const std::string& path, pid_t pid) {
  RETURN_IF_ERROR(FAILPOINT("runtime.create.before_pid_file"));
  return Annotate(sys::WriteFileAtomically(path, absl::StrCat(pid), 0644), "write the pid file");
}

absl::Status SendTo(const std::string& socket_path, absl::string_view name, int fd) {
  ASSIGN_OR_RETURN(UniqueFd socket, sys::ConnectUnix(socket_path));
  return sys::SendDescriptors(socket, name, {fd});
}

TerminalSize SizeFor(const TerminalSize& asked, const oci::Process& process) {
  if (asked.rows != 0 || asked.columns != 0 || !process.console_size) return asked;
  const auto narrow = [](uint64_t value) {
    return static_cast<uint16_t>(std::min<uint64_t>(value, UINT16_MAX));
  };
  return {narrow(process.console_size->height), narrow(process.console_size->width)};
}

absl::Status CheckLabels(const oci::Process& process, const std::string& mount_label) {
  if (!process.apparmor_profile.empty() && process.apparmor_profile != "unconfined") {
    absl::StatusOr<std::string> enabled =
        sys::ReadFile("/sys/module/apparmor/parameters/enabled", 16);
    if (!enabled.ok() || !absl::StartsWith(*enabled, "Y")) {
      return absl::FailedPreconditionError(
          absl::StrCat("process.apparmorProfile: the profile ", Quote(process.apparmor_profile),
                       " was asked for, but AppArmor is not enabled in this kernel"));
    }
  }
  const bool selinux = sys::Exists("/sys/fs/selinux/enforce");
  if (!process.selinux_label.empty() && !selinux) {
    return absl::FailedPreconditionError(
        "process.selinuxLabel: a label was asked for, but SELinux is not enabled in this kernel");
  }
  if (!mount_label.empty() && !selinux) {
    return absl::FailedPreconditionError(
        "linux.mountLabel: a label was asked for, but SELinux is not enabled in this kernel");
  }
  return absl::OkStatus();
}

bool AsksForLimits(const oci::Resources& resources) {
  oci::Resources rest = resources;
  rest.devices.clear();
  return oci::WriteResources(rest) != "{}";
}

std::vector<Timing> ParseTimings(absl::string_view text) {
  std::vector<Timing> timings;
  for (absl::string_view part : absl::StrSplit(text, ';', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> halves =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    Timing timing{std::string(halves.first)};
    if (absl::SimpleAtoi(halves.second, &timing.microseconds)) timings.push_back(timing);
  }
  return timings;
}

}  // namespace

absl::string_view StatusName(Status status) {
  switch (status) {
    case Status::kCreating:
      return "creating";
    case Status::kCreated:
      return "created";
    case Status::kRunning:
      return "running";
    case Status::kPaused:
      return "paused";
    case Status::kStopped:
      return "stopped";
  }
  return "unknown";
}

absl::Status CheckContainerId(absl::string_view id) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '+' || c == '-';
  };
  bool valid = !id.empty() && id.size() <= kMaxIdBytes && plain(id[0]);
  for (char c : id) valid = valid && (plain(c) || c == '.');
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "invalid container id format: ", Quote(id.substr(0, 128)),
      "; letters, digits and _ + - . are allowed, '.' not first, at most ", kMaxIdBytes, " bytes"));
}

std::string WriteState(const State& state) {
  json::Writer writer;
  writer.BeginObject();
  writer.Member("ociVersion", state.oci_version);
  writer.Member("id", state.id);
  writer.Member("pid", static_cast<int32_t>(state.pid));
  writer.Member("status", StatusName(state.status));
  writer.Member("bundle", state.bundle);
  writer.Member("rootfs", state.rootfs);
  writer.Member("created", FormatRfc3339Nano(state.created));
  if (!state.annotations.empty()) writer.Member("annotations", state.annotations);
  writer.Member("owner", state.owner);
  writer.EndObject();
  return writer.Take();
}

class Container::Impl {
 public:
  std::string directory;
  Record record;
  cgroup::Cgroup cgroup;
  UniqueFd pidfd;
  UniqueFd console;
  UniqueFd start_end;  // Only the creator of an init that others do not start has it.
  // What exec and hooks need. After Create without the parts that only a creation reads (`slim`): a
  // shim holds this for as long as its container lives.
  mutable std::optional<oci::Spec> spec;
  mutable bool slim = false;
  std::optional<SeccompFilter> filter;  // Compiled at Create; after Load made on demand.
  std::vector<Timing> timings;
  bool never_ran = false;  // The creation died before there was an init.

  absl::Status LoadSpec() const;
  absl::StatusOr<Status> GetStatus() const;
  State MakeState(Status status) const;
  absl::StatusOr<UniqueFd> ReachInit() const;
  bool InitListens() const;
  absl::Status KillAndWait();
};

namespace {

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

// One creation: each member is made by a step of Create and undone by its owner on failure.
class Creation {
 public:
  explicit Creation(const CreateOptions& options) : options_(options), last_(NowMicroseconds()) {}

  absl::StatusOr<std::unique_ptr<Container::Impl>> Run();

 private:
  absl::Status ReadConfiguration();
  absl::Status CheckConfiguration();
  absl::Status Claim();
  absl::Status PrepareCgroup();
  absl::Status PrepareSeccomp();
  absl::Status PrepareNamespaces();
  absl::Status PrepareMounts();
  absl::Status MapMount(MountPlan& mount);
  absl::Status PrepareNotify();
  absl::Status PrepareStart();
  absl::StatusOr<NewProcess> Clone();
  absl::Status Converse(NewProcess& process);
  absl::Status Answer(NewProcess& process, Received received);
  absl::Status SetUpFromOutside(const NewProcess& process);
  absl::Status DeliverSeccomp(const NewProcess& process, const Received& received);
  absl::Status Finish(NewProcess& process);
  std::string StateJson(Status status, pid_t pid) const;
  std::string StateTemplate() const;
  void Undo();
  void Lap(const char* step) {
    const int64_t now = NowMicroseconds();
    timings_.push_back({step, now - last_});
    last_ = now;
  }

  const oci::Spec& spec() const { return *spec_; }

  const CreateOptions& options_;
  std::string config_bytes_;
  oci::Spec parsed_;
  const oci::Spec* spec_ = nullptr;
  std::string directory_;
  bool claimed_ = false, hooks_ran_ = false;
  Record record_;
  cgroup::Cgroup cgroup_;
  std::optional<SeccompFilter> filter_;
  InitPlan plan_;
  uint64_t clone_flags_ = 0;
  UniqueFd joined_pid_namespace_;
  UniqueFd channel_, child_channel_, start_end_, child_start_;
  UniqueFd console_;
  std::vector<Timing> timings_;
  int64_t last_;
};

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
    struct stat info = {};
    if (::stat("/sys/fs/resctrl/schemata", &info) != 0) {
      return absl::FailedPreconditionError(
          "linux.intelRdt: this machine has no resctrl file system mounted at /sys/fs/resctrl");
    }
    return absl::UnimplementedError("linux.intelRdt: not supported by this version");
  }
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
  if (options_.cgroup_manager == CgroupManager::kSystemd) {
    return absl::UnimplementedError(
        "the systemd cgroup driver is not supported by this version; use cgroupfs");
  }
  if (options_.cgroup_manager != CgroupManager::kDisabled) {
    ASSIGN_OR_RETURN(cgroup::Layout layout, cgroup::Layout::Detect());
    const std::string& path = spec().linux_.cgroups_path;
    ASSIGN_OR_RETURN(
        cgroup_,
        cgroup::Cgroup::Plan(layout, path.empty() ? absl::StrCat("/gantry/", options_.id) : path));
    record_.cgroup_mode = cgroup_.mode();
    record_.cgroups = cgroup_.directories();
  }
  // What a crash leaves behind is found by this record.
  return SaveFirstRecord(directory_, record_, config_bytes_);
}

absl::Status Creation::PrepareCgroup() {
  if (cgroup_.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(FAILPOINT("runtime.create.before_cgroup"));
  const auto& resources = spec().linux_.resources;
  absl::Status status = cgroup_.Create();
  if (!status.ok() && (record_.rootless || InUserNamespace())) {
    // Nothing was delegated to this user. Fine, unless limits depend on it.
    if (resources && AsksForLimits(*resources)) {
      return Annotate(status, "rootless containers need a delegated cgroup for resource limits");
    }
    cgroup_ = cgroup::Cgroup();
    record_.cgroups.clear();
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(status);
  if (!resources) return absl::OkStatus();
  return cgroup_.Apply(*resources, record_.rootless || InUserNamespace());
}

absl::Status Creation::PrepareSeccomp() {
  if (!spec().linux_.seccomp) return absl::OkStatus();
  ASSIGN_OR_RETURN(filter_, CompileSeccomp(*spec().linux_.seccomp, record_.seccomp_cache));
  return absl::OkStatus();
}

absl::Status Creation::PrepareNamespaces() {
  for (const oci::Namespace& ns : spec().linux_.namespaces) {
    const int flag = NamespaceFlag(ns.type);
    if (ns.path.empty()) {
      // A cgroup namespace has to be made inside the cgroup, by the child. A time namespace needs
      // its offsets before anybody is in it.
      if (flag == CLONE_NEWCGROUP) {
        plan_.new_cgroup_namespace = true;
      } else {
        clone_flags_ |= static_cast<uint64_t>(flag);
      }
      if (flag == CLONE_NEWUSER) plan_.new_user_namespace = true;
      continue;
    }
    absl::StatusOr<UniqueFd> fd = sys::Open(ns.path, O_RDONLY);
    if (!fd.ok())
      return Annotate(fd.status(), absl::StrCat("linux.namespaces: the ", ns.type, " namespace"));
    if (::ioctl(fd->get(), NS_GET_NSTYPE) != flag) {
      return absl::InvalidArgumentError(
          absl::StrCat("linux.namespaces: ", Quote(ns.path), " is not a ", ns.type, " namespace"));
    }
    if (flag == CLONE_NEWPID) {
      joined_pid_namespace_ = *std::move(fd);
    } else {
      plan_.joined.push_back({*std::move(fd), flag});
    }
  }
  const oci::Namespace* user = spec().linux_.FindNamespace("user");
  if (user != nullptr && !user->path.empty()) {
    plan_.late_namespaces = clone_flags_;
    clone_flags_ = 0;
  }
  plan_.rootfs.user_namespace = user != nullptr;
  plan_.process.user_namespace = user != nullptr;
  return absl::OkStatus();
}

absl::Status Creation::PrepareMounts() {
  RootfsPlan& rootfs = plan_.rootfs;
  rootfs.path = record_.rootfs;
  rootfs.spec = spec_;
  rootfs.cgroups = record_.cgroups;
  rootfs.cgroup_mode = record_.cgroup_mode;
  rootfs.own_cgroup_namespace = plan_.new_cgroup_namespace;
  rootfs.no_pivot = options_.no_pivot;
  for (size_t i = 0; i < spec().mounts.size(); ++i) {
    ASSIGN_OR_RETURN(MountPlan mount, PlanMount(spec().mounts[i], i));
    if (mount.bind && !absl::StartsWith(mount.source, "/")) {
      mount.source = absl::StrCat(options_.bundle, "/", mount.source);
    }
    rootfs.mounts.push_back(std::move(mount));
  }
  for (MountPlan& mount : rootfs.mounts) {
    if (mount.idmap)
      RETURN_IF_ERROR(
          Annotate(MapMount(mount), absl::StrCat("map the ids of ", Quote(mount.destination))));
  }
  if (!plan_.rootfs.user_namespace) return absl::OkStatus();
  // The new process may not be able to reach host paths: it gets the trees themselves.
  rootfs.tree.Reset(
      kernel::OpenTree(AT_FDCWD, record_.rootfs.c_str(), OPEN_TREE_CLONE | AT_RECURSIVE));
  for (MountPlan& mount : rootfs.mounts) {
    if (!mount.bind || mount.tree.ok()) continue;
    mount.tree.Reset(kernel::OpenTree(AT_FDCWD, mount.source.c_str(),
                                      OPEN_TREE_CLONE | (mount.recursive ? AT_RECURSIVE : 0)));
  }
  return absl::OkStatus();  // Without the right to clone here (rootless) the child tries by path.
}

// An id-mapped tree can only be made with the rights of the host.
absl::Status Creation::MapMount(MountPlan& mount) {
  const bool own = !mount.uid_mappings.empty();
  const auto& uids = own ? mount.uid_mappings : spec().linux_.uid_mappings;
  const auto& gids = own ? mount.gid_mappings : spec().linux_.gid_mappings;
  if (uids.empty() || gids.empty()) {
    return absl::InvalidArgumentError(
        "idmap without uidMappings and gidMappings needs the container's own, in "
        "linux.uidMappings");
  }
  ASSIGN_OR_RETURN(UniqueFd user_namespace, MakeUserNamespace(uids, gids));
  mount.tree.Reset(kernel::OpenTree(AT_FDCWD, mount.source.c_str(),
                                    OPEN_TREE_CLONE | (mount.recursive ? AT_RECURSIVE : 0)));
  if (!mount.tree.ok())
    return ErrnoError(errno, absl::StrCat("bind the source ", Quote(mount.source)));
  if (kernel::SetMountAttributes(mount.tree.get(), mount.idmap_recursive ? AT_RECURSIVE : 0,
                                 MOUNT_ATTR_IDMAP, 0, 0, user_namespace.get()) != 0) {
    return ErrnoError(errno, absl::StrCat("id-map the mount of ", Quote(mount.source),
                                          "; does its file system support that?"));
  }
  return absl::OkStatus();
}

// Whoever starts the container binds a socket in this directory; see cli/notify.h.
absl::Status Creation::PrepareNotify() {
  if (options_.notify_socket.empty()) return absl::OkStatus();
  const std::string directory = absl::StrCat(directory_, "/notify");
  RETURN_IF_ERROR(sys::MakeDirectories(directory, 0755));
  MountPlan mount;
  mount.destination = "/run/notify";
  mount.source = directory;
  mount.bind = true;
  mount.set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  if (plan_.rootfs.user_namespace)
    mount.tree.Reset(kernel::OpenTree(AT_FDCWD, directory.c_str(), OPEN_TREE_CLONE));
  plan_.rootfs.mounts.push_back(std::move(mount));
  plan_.process.extra_environment.push_back("NOTIFY_SOCKET=/run/notify/notify.sock");
  return absl::OkStatus();
}

absl::Status Creation::PrepareStart() {
  ASSIGN_OR_RETURN(auto pair, MakePair());
  channel_ = std::move(pair.first);
  child_channel_ = std::move(pair.second);
  if (!options_.start_by_others) {
    ASSIGN_OR_RETURN(auto start, MakePair());
    start_end_ = std::move(start.first);
    child_start_ = std::move(start.second);
    return absl::OkStatus();
  }
  child_start_.Reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!child_start_.ok()) return ErrnoError(errno, "make the start socket");
  // Through a descriptor: state roots may be longer than a socket's name can be.
  ASSIGN_OR_RETURN(UniqueFd directory, sys::OpenPath(directory_));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path = absl::StrCat("/proc/self/fd/", directory.get(), "/", kStartSocketName);
  memcpy(address.sun_path, path.data(), path.size());
  if (::bind(child_start_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
      0) {
    return ErrnoError(errno, absl::StrCat("bind the start socket in ", Quote(directory_)));
  }
  return absl::OkStatus();
}

// What clone takes from this process's namespaces "for children", put back afterwards.
class ChildNamespaces {
 public:
  absl::Status Enter(const UniqueFd& pid_namespace) {
    saved_pid_.Reset(::open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC));
    if (!saved_pid_.ok() || ::setns(pid_namespace.get(), CLONE_NEWPID) != 0) {
      return ErrnoError(errno, "join the pid namespace");
    }
    return absl::OkStatus();
  }
  absl::Status NewTime(const std::map<std::string, oci::TimeOffset>& offsets) {
    saved_time_.Reset(::open("/proc/self/ns/time", O_RDONLY | O_CLOEXEC));
    if (!saved_time_.ok() || ::unshare(CLONE_NEWTIME) != 0)
      return ErrnoError(errno, "make a time namespace");
    std::string text;
    for (const auto& [clock, offset] : offsets) {
      absl::StrAppend(&text, clock, " ", offset.seconds, " ", offset.nanoseconds, "\n");
    }
    if (text.empty()) return absl::OkStatus();
    return Annotate(sys::WriteControlFile("/proc/self/timens_offsets", text), "linux.timeOffsets");
  }
  ~ChildNamespaces() {
    if (saved_pid_.ok()) (void)::setns(saved_pid_.get(), CLONE_NEWPID);
    if (saved_time_.ok()) (void)::setns(saved_time_.get(), CLONE_NEWTIME);
  }

 private:
  UniqueFd saved_pid_, saved_time_;
};

absl::StatusOr<NewProcess> Creation::Clone() {
  RETURN_IF_ERROR(FAILPOINT("runtime.create.before_clone"));
  if (!cgroup_.empty()) {
    ASSIGN_OR_RETURN(plan_.cgroups, cgroup_.OpenForJoining());
  }
  plan_.spec = spec_;
  plan_.id = options_.id;
  plan_.channel = child_channel_.get();
  plan_.start_socket = child_start_.get();
  plan_.start_by_others = options_.start_by_others;
  plan_.no_new_keyring = options_.no_new_keyring;
  plan_.stdio = options_.stdio;
  plan_.terminal_size = SizeFor(options_.terminal_size, *spec().process);
  plan_.process.process = &*spec().process;
  plan_.process.linux_ = &spec().linux_;
  plan_.process.filter = filter_ ? &*filter_ : nullptr;
  plan_.process.kept_descriptors = options_.listen_fds + options_.preserve_fds;
  if (options_.listen_fds > 0) {
    plan_.process.extra_environment.push_back(absl::StrCat("LISTEN_FDS=", options_.listen_fds));
    plan_.process.extra_environment.push_back("LISTEN_PID=1");
  }
  plan_.state_template = StateTemplate();

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
  const pid_t pid = kernel::Clone(clone_flags_, &raw_pidfd, SIGCHLD, plan_.cgroups.into.get());
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
  return NewProcess(pid, UniqueFd(raw_pidfd));
}

std::string Creation::StateJson(Status status, pid_t pid) const {
  State state;
  state.oci_version = record_.oci_version;
  state.id = record_.id;
  state.bundle = record_.bundle;
  state.rootfs = record_.rootfs;
  state.owner = record_.owner;
  state.created = record_.created;
  state.annotations = record_.annotations;
  state.status = status;
  state.pid = pid;
  return WriteState(state);
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
  if (spec().linux_.net_devices.empty()) return absl::OkStatus();
  const std::string& path = spec().linux_.FindNamespace("network")->path;
  ASSIGN_OR_RETURN(
      UniqueFd network,
      sys::Open(path.empty() ? absl::StrCat("/proc/", process.pid(), "/ns/net") : path, O_RDONLY));
  return MoveNetDevices(spec().linux_.net_devices, network);
}

absl::Status Creation::DeliverSeccomp(const NewProcess& process, const Received& received) {
  const oci::Seccomp& seccomp = *spec().linux_.seccomp;
  json::Writer writer;
  writer.BeginObject();
  writer.Member("ociVersion", record_.oci_version);
  writer.Member("fds", std::vector<std::string>{"seccompFd"});
  writer.Member("pid", static_cast<int32_t>(process.pid()));
  if (!seccomp.listener_metadata.empty()) writer.Member("metadata", seccomp.listener_metadata);
  writer.Key("state");
  writer.WriteRaw(StateJson(Status::kCreating, process.pid()));
  writer.EndObject();
  return Annotate(SendTo(seccomp.listener_path, writer.Take(), received.fd.get()),
                  "hand over the seccomp listener");
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
      RETURN_IF_ERROR(RunHooks(spec().hooks.prestart, "prestart", state));
      RETURN_IF_ERROR(RunHooks(spec().hooks.create_runtime, "createRuntime", state));
      return SendMessage(channel_.get(), Message::kGo);
    }
    case Message::kSeccomp:
      RETURN_IF_ERROR(DeliverSeccomp(process, received));
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

absl::Status Creation::Finish(NewProcess& process) {
  record_.pid = process.pid();
  ASSIGN_OR_RETURN(record_.start_time, sys::ProcessStartTime(process.pid()));
  RETURN_IF_ERROR(SaveRecord(directory_, record_));
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
  RETURN_IF_ERROR(FAILPOINT("runtime.create.before_acknowledge"));
  RETURN_IF_ERROR(SendMessage(channel_.get(), Message::kGo));
  // Init cuts its tie to this process and then closes its end: until then we must not exit.
  if (options_.start_by_others) (void)ReceiveMessage(channel_.get());
  return absl::OkStatus();
}

void Creation::Undo() {
  // The init is gone by now; nobody else in there is ours to end.
  if (cgroup_.made()) (void)cgroup_.Remove();
  if (!claimed_) return;
  (void)RemoveContainerDirectory(directory_);
  if (hooks_ran_) {
    (void)RunAllHooks(spec().hooks.poststop, "poststop", StateJson(Status::kStopped, 0));
  }
}

absl::StatusOr<std::unique_ptr<Container::Impl>> Creation::Run() {
  absl::Cleanup undo = [this] { Undo(); };
  RETURN_IF_ERROR(ReadConfiguration());
  RETURN_IF_ERROR(CheckConfiguration());
  RETURN_IF_ERROR(PrepareNamespaces());
  RETURN_IF_ERROR(PrepareMounts());
  Lap("parse");
  RETURN_IF_ERROR(Claim());
  plan_.rootfs.cgroups = record_.cgroups;
  plan_.rootfs.cgroup_mode = record_.cgroup_mode;
  RETURN_IF_ERROR(PrepareStart());
  RETURN_IF_ERROR(PrepareNotify());
  Lap("claim");
  RETURN_IF_ERROR(PrepareCgroup());
  plan_.rootfs.cgroups = record_.cgroups;
  Lap("cgroup");
  RETURN_IF_ERROR(PrepareSeccomp());
  Lap("seccomp");
  {
    ASSIGN_OR_RETURN(NewProcess process, Clone());
    Lap("clone");
    RETURN_IF_ERROR(Converse(process));
    last_ = NowMicroseconds();
    RETURN_IF_ERROR(Finish(process));
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
    std::move(undo).Cancel();
    return impl;
  }
}

}  // namespace

absl::Status Container::Impl::LoadSpec() const {
  if (spec) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::string bytes, sys::ReadFile(absl::StrCat(directory, "/", kConfigName)));
  ASSIGN_OR_RETURN(spec, oci::ParseSpec(bytes));
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> Container::Impl::ReachInit() const {
  UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.ok()) return ErrnoError(errno, "make a socket");
  ASSIGN_OR_RETURN(UniqueFd place, sys::OpenPath(directory));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path = absl::StrCat("/proc/self/fd/", place.get(), "/", kStartSocketName);
  memcpy(address.sun_path, path.data(), path.size());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return ErrnoError(errno, "reach the waiting init");
  }
  return socket;
}

bool Container::Impl::InitListens() const {
  if (start_end.ok()) return true;
  if (!record.start_by_others || !sys::Exists(absl::StrCat(directory, "/", kStartSocketName)))
    return false;
  // Connecting a datagram socket has no effect on the other side; it fails once init has executed.
  return ReachInit().ok();
}

absl::StatusOr<Status> Container::Impl::GetStatus() const {
  if (!pidfd.ok() || HasEnded(pidfd)) return Status::kStopped;
  if (InitListens()) return Status::kCreated;
  if (!cgroup.empty() && cgroup.IsFrozen().value_or(false)) return Status::kPaused;
  return Status::kRunning;
}

State Container::Impl::MakeState(Status status) const {
  State state;
  state.oci_version = record.oci_version;
  state.id = record.id;
  state.bundle = record.bundle;
  state.rootfs = record.rootfs;
  state.owner = record.owner;
  state.created = record.created;
  state.annotations = record.annotations;
  state.status = status;
  state.pid = status == Status::kStopped ? 0 : record.pid;
  return state;
}

absl::Status Container::Impl::KillAndWait() {
  if (pidfd.ok()) {
    absl::Status status = sys::SignalPidfd(pidfd, SIGKILL);
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  // Others may share the pid namespace and live on without their init; and a frozen init cannot
  // die.
  const bool frozen = !cgroup.empty() && cgroup.IsFrozen().value_or(false);
  if (frozen || !record.own_pid_namespace) {
    if (!cgroup.empty()) RETURN_IF_ERROR(cgroup.KillAll());
  }
  if (!pidfd.ok()) return absl::OkStatus();
  const absl::Time deadline = absl::Now() + kKillTimeout;
  for (;;) {
    pollfd poll_fd = {pidfd.get(), POLLIN, 0};
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (::poll(&poll_fd, 1, static_cast<int>(std::max<int64_t>(left, 0))) > 0)
      return absl::OkStatus();
    if (left <= 0) {
      return absl::DeadlineExceededError(absl::StrCat("container ", Quote(record.id),
                                                      " did not die within ",
                                                      absl::FormatDuration(kKillTimeout)));
    }
  }
}

Container::Container(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Container::Container(Container&&) noexcept = default;
Container& Container::operator=(Container&&) noexcept = default;
Container::~Container() = default;

absl::StatusOr<Container> Container::Create(const CreateOptions& options) {
  Creation creation(options);
  ASSIGN_OR_RETURN(std::unique_ptr<Impl> impl, creation.Run());
  return Container(std::move(impl));
}

absl::StatusOr<Container> Container::Load(const std::string& state_root, const std::string& id) {
  RETURN_IF_ERROR(CheckContainerId(id));
  auto impl = std::make_unique<Impl>();
  impl->directory = ContainerDirectory(state_root, id);
  absl::StatusOr<Record> record = LoadRecord(impl->directory);
  if (absl::IsNotFound(record.status())) {
    if (!sys::Exists(impl->directory)) return DoesNotExist(id);
    // Died between the directory and its record: nothing else was made yet.
    impl->record.id = id;
    impl->never_ran = true;
    return Container(std::move(impl));
  }
  RETURN_IF_ERROR(record.status());
  impl->record = *std::move(record);
  impl->cgroup = cgroup::Cgroup(impl->record.cgroup_mode, impl->record.cgroups);
  impl->never_ran = impl->record.pid == 0;
  if (impl->record.pid > 0 && impl->record.boot_id == BootId()) {
    absl::StatusOr<UniqueFd> pidfd = sys::OpenPidfd(impl->record.pid);
    // Looked at after it was opened: from then on the number cannot be somebody else's.
    if (pidfd.ok() &&
        sys::ProcessStartTime(impl->record.pid).value_or(0) == impl->record.start_time) {
      impl->pidfd = *std::move(pidfd);
    }
  }
  return Container(std::move(impl));
}

const std::string& Container::id() const { return impl_->record.id; }
pid_t Container::pid() const { return impl_->record.pid; }
const UniqueFd& Container::pidfd() const { return impl_->pidfd; }
const cgroup::Cgroup& Container::cgroup() const { return impl_->cgroup; }
bool Container::has_own_pid_namespace() const { return impl_->record.own_pid_namespace; }
UniqueFd Container::TakeConsole() { return std::move(impl_->console); }
const std::vector<Timing>& Container::timings() const { return impl_->timings; }

absl::StatusOr<const oci::Spec*> Container::GetSpec() const {
  if (impl_->slim) impl_->spec.reset();
  impl_->slim = false;
  RETURN_IF_ERROR(impl_->LoadSpec());
  return &*impl_->spec;
}

absl::StatusOr<Status> Container::GetStatus() const { return impl_->GetStatus(); }

absl::StatusOr<State> Container::GetState() const {
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  return impl_->MakeState(status);
}

absl::Status Container::Start() {
  const int64_t began = NowMicroseconds();
  RETURN_IF_ERROR(FAILPOINT("runtime.start.before_start"));
  UniqueFd socket;
  if (impl_->start_end.ok()) {
    socket = std::move(impl_->start_end);
  } else {
    absl::StatusOr<UniqueFd> reached =
        impl_->record.start_by_others ? impl_->ReachInit() : absl::UnavailableError("");
    if (!reached.ok()) {
      ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
      return absl::FailedPreconditionError(status == Status::kStopped
                                               ? "cannot start a container that has stopped"
                                               : "cannot start an already running container");
    }
    socket = *std::move(reached);
  }
  ASSIGN_OR_RETURN(auto pair, MakePair());
  RETURN_IF_ERROR(SendMessage(socket.get(), Message::kGo, "", pair.second.get()));
  pair.second.Reset();
  socket.Reset();
  absl::StatusOr<Received> answer = ReceiveMessage(pair.first.get());
  if (answer.ok() && answer->kind == Message::kError) return DecodeStatus(answer->payload);
  impl_->timings.push_back({"exec", NowMicroseconds() - began});
  if (impl_->record.start_by_others) {
    RETURN_IF_ERROR(sys::Unlink(absl::StrCat(impl_->directory, "/", kStartSocketName)));
  }
  if (!impl_->record.has_poststart) return absl::OkStatus();
  RETURN_IF_ERROR(impl_->LoadSpec());
  absl::Status status = RunHooks(impl_->spec->hooks.poststart, "poststart",
                                 WriteState(impl_->MakeState(Status::kRunning)));
  if (!status.ok()) (void)impl_->KillAndWait();
  return status;
}

namespace {

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

// One exec: the child's plan and the talk with it.
absl::StatusOr<ExecedProcess> RunExecConversation(const ExecOptions& options, ExecPlan& plan,
                                                  UniqueFd channel, UniqueFd child_channel,
                                                  const UniqueFd& pid_namespace_of,
                                                  const oci::Spec& spec, const State& state) {
  UniqueFd saved;
  if (pid_namespace_of.ok()) {
    saved.Reset(::open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC));
    if (!saved.ok() || ::setns(pid_namespace_of.get(), CLONE_NEWPID) != 0) {
      return ErrnoError(errno, "join the pid namespace of the container");
    }
  }
  plan.channel = child_channel.get();
  int raw_pidfd = -1;
  pid_t pid = kernel::Clone(0, &raw_pidfd, SIGCHLD, plan.cgroups.into.get());
  if (pid < 0 && plan.cgroups.into.ok() && (errno == EBUSY || errno == EOPNOTSUPP)) {
    // The container enabled controllers below its cgroup, which takes no processes any more: where
    // its init went there is room.
    absl::StatusOr<UniqueFd> other = CgroupOfProcess(state.pid);
    if (other.ok()) pid = kernel::Clone(0, &raw_pidfd, SIGCHLD, other->get());
  }
  const int error = errno;
  if (pid == 0) {
    channel.Reset();
    RunExec(plan);
  }
  if (saved.ok() && ::setns(saved.get(), CLONE_NEWPID) != 0) {
    return ErrnoError(errno, "return to the own pid namespace");
  }
  if (pid < 0) return ErrnoError(error, "clone the process");
  child_channel.Reset();
  NewProcess process(pid, UniqueFd(raw_pidfd));
  ExecedProcess result;
  if (const auto& score = options.process.oom_score_adj) {
    (void)sys::WriteControlFile(absl::StrCat("/proc/", pid, "/oom_score_adj"),
                                absl::StrCat(*score));
  }
  bool ready = false;
  for (;;) {
    absl::StatusOr<Received> received = ReceiveMessage(channel.get());
    if (!received.ok()) {
      if (ready) break;  // Closed by execve.
      return absl::InternalError("the new process ended while it was being set up");
    }
    switch (received->kind) {
      case Message::kError:
        return DecodeStatus(received->payload);
      case Message::kPid: {
        pid_t second = 0;
        if (!absl::SimpleAtoi(received->payload, &second) || !received->fd.ok()) {
          return absl::InternalError("the new process sent no pid");
        }
        process.Replace(second, std::move(received->fd));
        break;
      }
      case Message::kConsole:
        result.console = std::move(received->fd);
        break;
      case Message::kSeccomp: {
        json::Writer writer;
        writer.BeginObject();
        writer.Member("ociVersion", spec.oci_version);
        writer.Member("fds", std::vector<std::string>{"seccompFd"});
        writer.Member("pid", static_cast<int32_t>(process.pid()));
        if (!spec.linux_.seccomp->listener_metadata.empty()) {
          writer.Member("metadata", spec.linux_.seccomp->listener_metadata);
        }
        writer.Key("state");
        writer.WriteRaw(WriteState(state));
        writer.EndObject();
        RETURN_IF_ERROR(
            SendTo(spec.linux_.seccomp->listener_path, writer.Take(), received->fd.get()));
        RETURN_IF_ERROR(SendMessage(channel.get(), Message::kGo));
        break;
      }
      case Message::kReady: {
        if (result.console.ok() && !options.console_socket.empty()) {
          RETURN_IF_ERROR(
              Annotate(SendTo(options.console_socket, "/dev/ptmx", result.console.get()),
                       "hand over the terminal"));
          result.console.Reset();
        }
        if (!options.pidfd_socket.empty()) {
          RETURN_IF_ERROR(SendTo(options.pidfd_socket, "pidfd", process.pidfd().get()));
        }
        if (!options.pid_file.empty())
          RETURN_IF_ERROR(WritePidFile(options.pid_file, process.pid()));
        ready = true;
        RETURN_IF_ERROR(SendMessage(channel.get(), Message::kGo));
        break;
      }
      default:
        return absl::InternalError("unexpected message from the new process");
    }
  }
  result.pid = process.pid();
  result.pidfd = process.Release();
  return result;
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

}  // namespace

absl::StatusOr<ExecedProcess> Container::Exec(const ExecOptions& asked) {
  const int64_t began = NowMicroseconds();
  RETURN_IF_ERROR(FAILPOINT("runtime.exec.before_exec"));
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (status == Status::kStopped)
    return absl::FailedPreconditionError("cannot exec in a stopped container");
  if (status == Status::kPaused && !asked.ignore_paused) {
    return absl::FailedPreconditionError(
        "cannot exec in a paused container (use --ignore-paused to override)");
  }
  RETURN_IF_ERROR(impl_->LoadSpec());
  const oci::Spec& spec = *impl_->spec;
  ExecOptions options = asked;
  if (options.inherit_defaults && spec.process)
    options.process = WithDefaults(options.process, *spec.process);
  RETURN_IF_ERROR(oci::CheckProcess(options.process, "process"));
  RETURN_IF_ERROR(CheckLabels(options.process, ""));

  ExecPlan plan;
  if (spec.linux_.seccomp) {
    if (!impl_->filter) {
      ASSIGN_OR_RETURN(impl_->filter,
                       CompileSeccomp(*spec.linux_.seccomp, impl_->record.seccomp_cache));
    }
    plan.process.filter = &*impl_->filter;
  }
  if (!impl_->cgroup.empty()) {
    cgroup::Cgroup target = impl_->cgroup;
    if (!options.cgroups.empty()) {
      std::vector<cgroup::Directory> directories = impl_->cgroup.directories();
      for (cgroup::Directory& directory : directories) {
        for (const auto& [controller, below] : options.cgroups) {
          const bool meant = controller.empty() || directory.controllers == controller;
          if (meant) directory.path = absl::StrCat(directory.path, CleanPath(below));
        }
      }
      target = cgroup::Cgroup(impl_->cgroup.mode(), std::move(directories));
    }
    ASSIGN_OR_RETURN(plan.cgroups, target.OpenForJoining());
  }
  for (const oci::Namespace& ns : spec.linux_.namespaces) plan.namespaces |= NamespaceFlag(ns.type);
  const bool user_namespace = (plan.namespaces & CLONE_NEWUSER) != 0;
  plan.second_child = user_namespace && (plan.namespaces & CLONE_NEWPID) != 0;
  UniqueFd pid_namespace_of;
  if (!plan.second_child && (plan.namespaces & CLONE_NEWPID) != 0) {
    plan.namespaces &= ~CLONE_NEWPID;
    pid_namespace_of.Reset(::fcntl(impl_->pidfd.get(), F_DUPFD_CLOEXEC, 3));
  }
  plan.init_pidfd.Reset(::fcntl(impl_->pidfd.get(), F_DUPFD_CLOEXEC, 3));
  if (options.process.exec_cpu_affinity) {
    plan.cpu_affinity_initial = options.process.exec_cpu_affinity->initial;
    plan.cpu_affinity_final = options.process.exec_cpu_affinity->final;
  }
  plan.keyring = impl_->record.no_new_keyring ? "" : impl_->record.id;
  plan.terminal = options.process.terminal;
  plan.stdio = options.stdio;
  plan.terminal_size = SizeFor(options.terminal_size, options.process);
  plan.process.process = &options.process;
  plan.process.linux_ = &spec.linux_;
  plan.process.user_namespace = user_namespace;
  plan.process.kept_descriptors = options.preserve_fds;
  ASSIGN_OR_RETURN(auto pair, MakePair());
  absl::StatusOr<ExecedProcess> process =
      RunExecConversation(options, plan, std::move(pair.first), std::move(pair.second),
                          pid_namespace_of, spec, impl_->MakeState(status));
  if (process.ok()) process->timings.push_back({"exec", NowMicroseconds() - began});
  return process;
}

absl::Status Container::Kill(int signal, bool all) {
  RETURN_IF_ERROR(FAILPOINT("runtime.kill.before_signal"));
  const bool alive = impl_->pidfd.ok() && !HasEnded(impl_->pidfd);
  if (all && !impl_->cgroup.empty() &&
      (!alive || !impl_->record.own_pid_namespace || signal != SIGKILL)) {
    absl::StatusOr<std::vector<pid_t>> pids = impl_->cgroup.Pids();
    if (!alive && (!pids.ok() || pids->empty()))
      return absl::FailedPreconditionError("container not running");
    return signal == SIGKILL ? impl_->cgroup.KillAll() : impl_->cgroup.SignalAll(signal);
  }
  if (!alive) return absl::FailedPreconditionError("container not running");
  absl::Status status = sys::SignalPidfd(impl_->pidfd, signal);
  if (absl::IsNotFound(status)) return absl::FailedPreconditionError("container not running");
  RETURN_IF_ERROR(status);
  if (signal != SIGKILL) return absl::OkStatus();
  // A frozen v1 cgroup must be thawed for the signal to have an effect.
  if (impl_->cgroup.IsFrozen().value_or(false)) return impl_->cgroup.Thaw();
  return absl::OkStatus();
}

absl::Status Container::Pause() {
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (status != Status::kRunning && status != Status::kCreated) {
    return absl::FailedPreconditionError(
        absl::StrCat("container not running or created: ", StatusName(status)));
  }
  if (impl_->cgroup.empty()) {
    return absl::FailedPreconditionError("cannot pause a container that has no cgroup");
  }
  return impl_->cgroup.Freeze();
}

absl::Status Container::Resume() {
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (status != Status::kPaused &&
      !(status == Status::kCreated && impl_->cgroup.IsFrozen().value_or(false))) {
    return absl::FailedPreconditionError(
        absl::StrCat("container not paused: ", StatusName(status)));
  }
  return impl_->cgroup.Thaw();
}

absl::Status Container::Update(const oci::Resources& resources) {
  RETURN_IF_ERROR(FAILPOINT("runtime.update.before_limits"));
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (status == Status::kStopped) return absl::FailedPreconditionError("container not running");
  RETURN_IF_ERROR(oci::CheckResources(resources, "resources"));
  return impl_->cgroup.Update(resources);
}

absl::StatusOr<std::vector<pid_t>> Container::Pids() const {
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (!impl_->cgroup.empty()) {
    absl::StatusOr<std::vector<pid_t>> pids = impl_->cgroup.Pids();
    if (absl::IsNotFound(pids.status()) && status == Status::kStopped) return std::vector<pid_t>();
    return pids;
  }
  return status == Status::kStopped ? std::vector<pid_t>() : std::vector<pid_t>{impl_->record.pid};
}

absl::Status Container::Delete(bool force, std::vector<std::string>* warnings) {
  RETURN_IF_ERROR(FAILPOINT("runtime.delete.before_kill"));
  ASSIGN_OR_RETURN(Status status, impl_->GetStatus());
  if (status == Status::kRunning || status == Status::kPaused) {
    if (!force) {
      return absl::FailedPreconditionError(
          absl::StrCat("cannot delete container ", impl_->record.id,
                       " that is not stopped: ", StatusName(status)));
    }
  }
  if (status != Status::kStopped) RETURN_IF_ERROR(impl_->KillAndWait());
  if (!impl_->cgroup.empty()) {
    // Processes that outlived an init whose pid namespace was not theirs.
    if (!impl_->record.own_pid_namespace) (void)impl_->cgroup.KillAll();
    RETURN_IF_ERROR(FAILPOINT("runtime.delete.before_cgroup"));
    RETURN_IF_ERROR(impl_->cgroup.Remove());
  }
  // The hooks are read before the record of them goes; a creation that died early has none.
  const bool hooks = impl_->record.has_poststop && !impl_->never_ran && impl_->LoadSpec().ok();
  RETURN_IF_ERROR(FAILPOINT("runtime.delete.before_state"));
  RETURN_IF_ERROR(RemoveContainerDirectory(impl_->directory));
  if (!hooks) return absl::OkStatus();
  std::vector<std::string> failures = RunAllHooks(impl_->spec->hooks.poststop, "poststop",
                                                  WriteState(impl_->MakeState(Status::kStopped)));
  if (warnings != nullptr) *warnings = std::move(failures);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ListContainers(const std::string& state_root) {
  absl::StatusOr<std::vector<std::string>> names = sys::ListDirectory(state_root);
  if (absl::IsNotFound(names.status())) return std::vector<std::string>();
  RETURN_IF_ERROR(names.status());
  std::vector<std::string> ids;
  for (std::string& name : *names) {
    if (CheckContainerId(name).ok()) ids.push_back(std::move(name));
  }
  return ids;
}

absl::Status ForceDelete(const std::string& state_root, const std::string& id) {
  absl::StatusOr<Container> container = Container::Load(state_root, id);
  if (absl::IsNotFound(container.status())) return absl::OkStatus();
  if (absl::IsDataLoss(container.status())) {
    return sys::RemoveTree(ContainerDirectory(state_root, id));
  }
  RETURN_IF_ERROR(container.status());
  return container->Delete(true);
}

}  // namespace gantry::runtime
