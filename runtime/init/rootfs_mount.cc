// Rootfs: the mounts of config.json.
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "runtime/init/copy_up.h"
#include "runtime/init/rootfs.h"
#include "runtime/init/rootfs_path.h"
#include "runtime/kernel.h"

namespace gantry::runtime {

using sys::ErrnoError;
using sys::UniqueFd;

namespace {

absl::Status SetAttributes(const UniqueFd& mount, const MountPlan& plan) {
  const bool recursive_attributes = (plan.recursive_set | plan.recursive_clear) != 0;
  if ((plan.set | plan.clear) != 0 &&
      kernel::SetMountAttributes(mount.get(), 0, plan.set, plan.clear) != 0) {
    // In a user namespace the source's own flags are locked: those may stay, what is asked for may
    // not be lost.
    if (errno != EPERM || kernel::SetMountAttributes(mount.get(), 0, plan.set, 0) != 0) {
      return ErrnoError(errno, "set the options of the mount");
    }
  }
  if (recursive_attributes &&
      kernel::SetMountAttributes(mount.get(), AT_RECURSIVE, plan.recursive_set,
                                 plan.recursive_clear) != 0) {
    return ErrnoError(errno, "set the recursive options of the mount");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<UniqueFd> Rootfs::MakeSource(MountPlan& mount, const UniqueFd& target) {
  if (mount.tree.ok()) return std::move(mount.tree);
  if (mount.bind) {
    UniqueFd tree(kernel::OpenTree(AT_FDCWD, mount.source.c_str(),
                                   OPEN_TREE_CLONE | (mount.recursive ? AT_RECURSIVE : 0)));
    if (!tree.ok()) return ErrnoError(errno, absl::StrCat("bind the source ", Quote(mount.source)));
    return tree;
  }
  UniqueFd context(kernel::OpenFilesystem(mount.type.c_str()));
  if (!context.ok()) {
    return ErrnoError(errno, absl::StrCat("use the file system type ", Quote(mount.type)));
  }
  const auto configure = [&](unsigned command, const char* key, const char* value) -> absl::Status {
    if (kernel::Configure(context.get(), command, key, value) == 0) return absl::OkStatus();
    return ErrnoError(
        errno, absl::StrCat("set the option ", Quote(key == nullptr ? "" : key),
                            value == nullptr ? "" : absl::StrCat("=", value), " of ", mount.type));
  };
  if (!mount.source.empty()) {
    RETURN_IF_ERROR(configure(FSCONFIG_SET_STRING, "source", mount.source.c_str()));
  }
  for (const std::string& flag : mount.flags) {
    RETURN_IF_ERROR(configure(FSCONFIG_SET_FLAG, flag.c_str(), nullptr));
  }
  bool has_mode = false;
  for (const auto& [name, value] : mount.data) {
    if (name == "newinstance") continue;  // devpts has no other way any more.
    has_mode = has_mode || name == "mode";
    // A group that is not mapped would fail the whole mount.
    if (mount.type == "devpts" && name == "gid" && plan_.user_namespace) {
      (void)kernel::Configure(context.get(), FSCONFIG_SET_STRING, "gid", value.c_str());
      continue;
    }
    RETURN_IF_ERROR(value.empty() ? configure(FSCONFIG_SET_FLAG, name.c_str(), nullptr)
                                  : configure(FSCONFIG_SET_STRING, name.c_str(), value.c_str()));
  }
  if (mount.type == "tmpfs" && !has_mode) {
    // As runc does: the directory looks as it did before.
    struct stat info = {};
    if (::fstat(target.get(), &info) == 0) {
      RETURN_IF_ERROR(configure(FSCONFIG_SET_STRING, "mode",
                                absl::StrFormat("%o", info.st_mode & 07777).c_str()));
    }
  }
  if (!plan_.spec->linux_.mount_label.empty() &&
      (mount.type == "tmpfs" || mount.type == "devpts")) {
    RETURN_IF_ERROR(
        configure(FSCONFIG_SET_STRING, "context", plan_.spec->linux_.mount_label.c_str()));
  }
  RETURN_IF_ERROR(configure(FSCONFIG_CMD_CREATE, nullptr, nullptr));
  const uint64_t attributes = mount.set;
  UniqueFd made(kernel::MountFilesystem(context.get(), static_cast<unsigned>(attributes)));
  if (!made.ok()) return ErrnoError(errno, absl::StrCat("mount ", mount.type));
  return made;
}

absl::Status Rootfs::MountCgroups(const MountPlan& mount, const UniqueFd& target) {
  if (plan_.cgroups.empty()) return absl::OkStatus();
  if (plan_.cgroup_mode == cgroup::Mode::kV2) {
    UniqueFd tree;
    if (plan_.own_cgroup_namespace) {
      UniqueFd context(kernel::OpenFilesystem("cgroup2"));
      if (context.ok() &&
          kernel::Configure(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr) == 0) {
        tree.Reset(kernel::MountFilesystem(context.get(), static_cast<unsigned>(mount.set)));
      }
    }
    if (!tree.ok()) {
      // Without a namespace, or where mounting is not permitted: the container's own subtree only.
      tree.Reset(kernel::OpenTree(AT_FDCWD, plan_.cgroups[0].path.c_str(), OPEN_TREE_CLONE));
      if (!tree.ok()) return ErrnoError(errno, "bind the container's cgroup");
      RETURN_IF_ERROR(SetAttributes(tree, mount));
    }
    if (kernel::MoveMount(tree.get(), target.get()) != 0)
      return ErrnoError(errno, "mount the cgroup");
    return absl::OkStatus();
  }
  // v1: a small tmpfs with one directory for each hierarchy, each the container's own subtree.
  UniqueFd context(kernel::OpenFilesystem("tmpfs"));
  if (!context.ok() || kernel::Configure(context.get(), FSCONFIG_SET_STRING, "mode", "755") != 0 ||
      kernel::Configure(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr) != 0) {
    return ErrnoError(errno, "make the tmpfs for cgroups");
  }
  UniqueFd top(kernel::MountFilesystem(
      context.get(), static_cast<unsigned>(mount.set & ~uint64_t{MOUNT_ATTR_RDONLY})));
  if (!top.ok() || kernel::MoveMount(top.get(), target.get()) != 0) {
    return ErrnoError(errno, "mount the tmpfs for cgroups");
  }
  for (const cgroup::Directory& directory : plan_.cgroups) {
    const std::string name = directory.unified()
                                 ? "unified"
                                 : std::string(absl::StripPrefix(directory.controllers, "name="));
    if (::mkdirat(top.get(), name.c_str(), 0755) != 0) {
      return ErrnoError(errno, absl::StrCat("make the cgroup directory ", Quote(name)));
    }
    UniqueFd place(::openat(top.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    UniqueFd tree(kernel::OpenTree(AT_FDCWD, directory.path.c_str(), OPEN_TREE_CLONE));
    if (!tree.ok())
      return ErrnoError(errno, absl::StrCat("bind the cgroup ", Quote(directory.path)));
    if (mount.set != 0 && kernel::SetMountAttributes(tree.get(), 0, mount.set, 0) != 0) {
      return ErrnoError(errno, "set the options of the cgroup mount");
    }
    if (kernel::MoveMount(tree.get(), place.get()) != 0) {
      return ErrnoError(errno, absl::StrCat("mount the cgroup ", Quote(directory.path)));
    }
    // "cpu,cpuacct" is known by either name.
    if (absl::StrContains(name, ',')) {
      for (absl::string_view one : absl::StrSplit(name, ',')) {
        (void)::symlinkat(name.c_str(), top.get(), std::string(one).c_str());
      }
    }
  }
  if ((mount.set & MOUNT_ATTR_RDONLY) != 0 &&
      kernel::SetMountAttributes(top.get(), 0, MOUNT_ATTR_RDONLY, 0) != 0) {
    return ErrnoError(errno, "make the cgroup mount read-only");
  }
  return absl::OkStatus();
}

absl::Status Rootfs::MountOne(MountPlan& mount) {
  RETURN_IF_ERROR(FAILPOINT("runtime.rootfs.before_mount"));
  const bool special =
      mount.destination == "/proc" || mount.destination == "/sys" || mount.destination == "/dev";
  bool directory = true;
  if (mount.bind) {
    if (mount.tree.ok()) {
      directory = IsDirectory(mount.tree);
    } else {
      struct stat info = {};
      if (::stat(mount.source.c_str(), &info) != 0) {
        return ErrnoError(errno, absl::StrCat("stat the source ", Quote(mount.source)));
      }
      directory = S_ISDIR(info.st_mode);
    }
  }
  ASSIGN_OR_RETURN(UniqueFd target, directory
                                        ? OpenOrMakeDirectory(root_, mount.destination, special)
                                        : OpenOrMakeFile(root_, mount.destination));
  // A link in the image may have led here: what counts is where we are, not how it was written.
  if (IsOnProc(target) && !absl::StartsWith(mount.destination, "/proc")) {
    return absl::PermissionDeniedError(absl::StrCat(
        Quote(mount.destination), " leads into /proc by a symbolic link; refusing to mount there"));
  }
  if (mount.type == "cgroup" || mount.type == "cgroup2") return MountCgroups(mount, target);
  ASSIGN_OR_RETURN(UniqueFd tree, MakeSource(mount, target));
  if (mount.bind || (mount.recursive_set | mount.recursive_clear) != 0) {
    RETURN_IF_ERROR(SetAttributes(tree, mount));
  }
  if (mount.copy_up && mount.type == "tmpfs") RETURN_IF_ERROR(CopyTree(target, tree));
  if (kernel::MoveMount(tree.get(), target.get()) != 0)
    return ErrnoError(errno, "attach the mount");
  for (const auto& [flag, recursive] : mount.propagation) {
    if (kernel::SetMountAttributes(tree.get(), recursive ? AT_RECURSIVE : 0, 0, 0, flag) != 0) {
      return ErrnoError(errno, "set the propagation of the mount");
    }
  }
  if (mount.type == "proc") proc_ = std::move(tree);
  return absl::OkStatus();
}

}  // namespace gantry::runtime
