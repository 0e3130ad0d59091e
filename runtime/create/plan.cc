#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/create/creation.h"
#include "runtime/handover.h"
#include "runtime/kernel.h"
#include "runtime/namespaces.h"
#include "runtime/user_namespace.h"

namespace gantry::runtime {

using sys::ErrnoError;
using sys::UniqueFd;

absl::Status Creation::JoinNamespace(const oci::Namespace& ns) {
  const int flag = NamespaceFlag(ns.type);
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
    } else {
      RETURN_IF_ERROR(JoinNamespace(ns));
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
  // The new process may not be able to reach host paths: it gets the trees themselves.
  if (plan_.rootfs.user_namespace) CloneTrees();
  return absl::OkStatus();
}

// Without the right to clone here (rootless) the child tries by path.
void Creation::CloneTrees() {
  RootfsPlan& rootfs = plan_.rootfs;
  rootfs.tree.Reset(
      kernel::OpenTree(AT_FDCWD, record_.rootfs.c_str(), OPEN_TREE_CLONE | AT_RECURSIVE));
  for (MountPlan& mount : rootfs.mounts) {
    if (!mount.bind || mount.tree.ok()) continue;
    mount.tree.Reset(kernel::OpenTree(AT_FDCWD, mount.source.c_str(),
                                      OPEN_TREE_CLONE | (mount.recursive ? AT_RECURSIVE : 0)));
  }
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

void Creation::PrepareProcess() {
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
  plan_.process.keep_groups = annotations_.keep_original_groups;
  plan_.process.kept_descriptors = options_.listen_fds + options_.preserve_fds;
  if (options_.listen_fds > 0) {
    plan_.process.extra_environment.push_back(absl::StrCat("LISTEN_FDS=", options_.listen_fds));
    plan_.process.extra_environment.push_back("LISTEN_PID=1");
  }
  plan_.state_template = StateTemplate();
}

}  // namespace gantry::runtime
