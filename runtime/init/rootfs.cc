#include "runtime/init/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "runtime/init/mount_plan.h"
#include "runtime/init/rootfs_path.h"
#include "runtime/kernel.h"

namespace gantry::runtime {
namespace {

using sys::ErrnoError;
using sys::UniqueFd;

// The mount point that `path` lies on: the nearest directory above that is the root of a mount.
std::string MountPointOf(std::string path) {
  while (path.size() > 1) {
    struct statx info = {};
    if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, 0, &info) == 0 &&
        (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0) {
      return path;
    }
    path.resize(std::max<size_t>(path.rfind('/'), 1));
  }
  return "/";
}

// Who joins a mount namespace gets the root of the namespace, not that of its init. After
// pivot_root from within a chroot the two differ: an exec would run in the host's root.
absl::Status CheckNoChroot() {
  struct statx ours = {}, whole = {};
  const unsigned mask = STATX_INO | STATX_MNT_ID;
  UniqueFd space(::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
  if (!space.ok()) return ErrnoError(errno, "open /proc/self/ns/mnt; is /proc mounted?");
  if (::statx(AT_FDCWD, "/", 0, mask, &ours) != 0) return ErrnoError(errno, "statx '/'");
  if (::setns(space.get(), CLONE_NEWNS) != 0) return ErrnoError(errno, "look at the whole root");
  if (::statx(AT_FDCWD, "/", 0, mask, &whole) != 0) return ErrnoError(errno, "statx '/'");
  if (ours.stx_mnt_id == whole.stx_mnt_id && ours.stx_ino == whole.stx_ino) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the caller's root directory is not that of its mount namespace (chroot): what enters the "
      "container later would be outside of it; start the runtime without chroot, or pivot_root "
      "first");
}

}  // namespace

absl::Status Rootfs::Attach() {
  RETURN_IF_ERROR(CheckNoChroot());
  RETURN_IF_ERROR(FAILPOINT("runtime.rootfs.before_attach"));
  const uint64_t asked = PropagationFlag(plan_.spec->linux_.rootfs_propagation);
  const bool shared = (asked & MS_SHARED) != 0;
  // Slaves of the host: its unmounts still reach us (a container must not keep a disk busy for
  // ever), ours never reach it. Only "shared" asks for the other direction, too.
  if (::mount(nullptr, "/", nullptr, shared ? (MS_SHARED | MS_REC) : (MS_SLAVE | MS_REC),
              nullptr) != 0) {
    return ErrnoError(errno, "stop mounts from propagating to the host");
  }
  if (plan_.tree.ok()) {
    // The path may not be reachable for the user namespace's root; "/" is, and pivot_root does not
    // mind.
    UniqueFd top(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (kernel::MoveMount(plan_.tree.get(), top.get()) != 0) {
      return ErrnoError(errno, absl::StrCat("mount the root ", Quote(plan_.path)));
    }
    root_ = std::move(plan_.tree);
    return absl::OkStatus();
  }
  UniqueFd place(::open(plan_.path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!place.ok()) return ErrnoError(errno, absl::StrCat("open the root ", Quote(plan_.path)));
  if (shared) {
    // pivot_root refuses a root whose parent mount is shared.
    const std::string parent = MountPointOf(plan_.path);
    if (::mount(nullptr, parent.c_str(), nullptr, MS_PRIVATE, nullptr) != 0) {
      return ErrnoError(errno, absl::StrCat("make the mount ", Quote(parent), " private"));
    }
  }
  root_.Reset(kernel::OpenTree(place.get(), "", OPEN_TREE_CLONE | AT_RECURSIVE | AT_EMPTY_PATH));
  if (!root_.ok())
    return ErrnoError(errno, absl::StrCat("clone the mounts at ", Quote(plan_.path)));
  if (kernel::MoveMount(root_.get(), place.get()) != 0) {
    return ErrnoError(errno, absl::StrCat("mount the root ", Quote(plan_.path)));
  }
  return absl::OkStatus();
}

absl::Status Rootfs::MountPlanned(MountPlan& mount) {
  absl::Status status = MountOne(mount);
  if (status.ok()) return status;
  return Annotate(status, absl::StrCat("mount ", mount.bind ? Quote(mount.source) : mount.type,
                                       " on ", Quote(mount.destination)));
}

absl::Status Rootfs::MountAll(UniqueFd root) {
  root_ = std::move(root);
  for (MountPlan& mount : plan_.mounts) RETURN_IF_ERROR(MountPlanned(mount));
  return absl::OkStatus();
}

absl::Status Rootfs::Populate() {
  // Nodes and directories get the modes that were asked for.
  const mode_t old_mask = ::umask(0);
  absl::Cleanup restore = [&] { ::umask(old_mask); };
  bool dev_is_bind = false;
  // The root of /dev stays writable until nodes and links are in it.
  MountPlan* dev = nullptr;
  for (MountPlan& mount : plan_.mounts) {
    if (mount.destination == "/dev") {
      dev_is_bind = mount.bind;
      dev = &mount;
      if (!mount.bind) mount.set &= ~uint64_t{MOUNT_ATTR_RDONLY};
    }
    RETURN_IF_ERROR(MountPlanned(mount));
    if (&mount == dev) fresh_dev_ = !mount.bind;
  }
  if (!dev_is_bind) RETURN_IF_ERROR(MakeDevices());
  // As runc does: a working directory that the image lacks is made.
  if (plan_.spec->process) {
    RETURN_IF_ERROR(Annotate(OpenOrMakeDirectory(root_, CleanPath(plan_.spec->process->cwd)),
                             "make the working directory")
                        .status());
  }
  return absl::OkStatus();
}

absl::Status Rootfs::Enter() {
  RETURN_IF_ERROR(FAILPOINT("runtime.rootfs.before_pivot"));
  proc_.Reset();
  empty_.Reset();
  if (::fchdir(root_.get()) != 0) return ErrnoError(errno, "enter the root");
  if (plan_.no_pivot) {
    if (::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || ::chroot(".") != 0) {
      return ErrnoError(errno, "move the root (no_pivot)");
    }
  } else {
    // Old and new root are stacked on one place, so that no directory for the old one is needed.
    if (::syscall(SYS_pivot_root, ".", ".") != 0) return ErrnoError(errno, "pivot_root");
    const bool shared = (PropagationFlag(plan_.spec->linux_.rootfs_propagation) & MS_SHARED) != 0;
    if (shared && ::mount(nullptr, ".", nullptr, MS_SLAVE | MS_REC, nullptr) != 0) {
      return ErrnoError(errno, "keep the unmount of the old root from the host");
    }
    if (::umount2(".", MNT_DETACH) != 0) return ErrnoError(errno, "leave the old root");
  }
  if (::chdir("/") != 0) return ErrnoError(errno, "enter the root");
  if (uint64_t asked = PropagationFlag(plan_.spec->linux_.rootfs_propagation); asked != 0) {
    if (::mount(nullptr, "/", nullptr, asked, nullptr) != 0) {
      return ErrnoError(errno, "set the propagation of the root");
    }
  }
  root_.Reset();
  return absl::OkStatus();
}

}  // namespace gantry::runtime
