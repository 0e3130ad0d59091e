// Rootfs: what is hidden or read-only, and sysctls.
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/init/mount_plan.h"
#include "runtime/init/rootfs.h"
#include "runtime/init/rootfs_path.h"
#include "runtime/kernel.h"

namespace gantry::runtime {

using sys::ErrnoError;
using sys::UniqueFd;

absl::Status Rootfs::Mask(const std::string& path) {
  UniqueFd target(OpenIn(root_, CleanPath(path), O_PATH));
  if (!target.ok()) {
    // Nothing there to hide.
    if (errno == ENOENT || errno == ENOTDIR || errno == EACCES) return absl::OkStatus();
    return ErrnoError(errno, absl::StrCat("open the masked path ", Quote(path)));
  }
  struct stat info = {};
  if (::fstat(target.get(), &info) != 0)
    return ErrnoError(errno, absl::StrCat("stat ", Quote(path)));
  UniqueFd cover;
  if (!S_ISDIR(info.st_mode)) {
    cover.Reset(kernel::OpenTree(AT_FDCWD, "/dev/null", OPEN_TREE_CLONE));
    struct stat null = {};
    // The host's path, but a careless host is no reason to expose what should be hidden.
    if (!cover.ok() || ::fstat(cover.get(), &null) != 0 || !S_ISCHR(null.st_mode) ||
        null.st_rdev != ::makedev(1, 3)) {
      return absl::FailedPreconditionError("'/dev/null' of the host is not the null device (1:3)");
    }
  } else if (empty_.ok()) {
    cover.Reset(kernel::OpenTree(empty_.get(), "", OPEN_TREE_CLONE | AT_EMPTY_PATH));
  } else {
    UniqueFd context(kernel::OpenFilesystem("tmpfs"));
    if (context.ok() &&
        kernel::Configure(context.get(), FSCONFIG_SET_STRING, "nr_inodes", "1") == 0 &&
        kernel::Configure(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr) == 0) {
      cover.Reset(kernel::MountFilesystem(context.get(), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                                             MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
    }
  }
  if (!cover.ok() || kernel::MoveMount(cover.get(), target.get()) != 0) {
    return ErrnoError(errno, absl::StrCat("mask ", Quote(path)));
  }
  if (S_ISDIR(info.st_mode) && !empty_.ok()) empty_ = std::move(cover);
  return absl::OkStatus();
}

absl::Status Rootfs::MakeReadOnly(const std::string& path) {
  UniqueFd target(OpenIn(root_, CleanPath(path), O_PATH));
  if (!target.ok()) {
    if (errno == ENOENT || errno == ENOTDIR || errno == EACCES) return absl::OkStatus();
    return ErrnoError(errno, absl::StrCat("open the read-only path ", Quote(path)));
  }
  UniqueFd tree(kernel::OpenTree(target.get(), "", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE));
  if (!tree.ok() ||
      kernel::SetMountAttributes(tree.get(), AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0) != 0 ||
      kernel::MoveMount(tree.get(), target.get()) != 0) {
    return ErrnoError(errno, absl::StrCat("make ", Quote(path), " read-only"));
  }
  return absl::OkStatus();
}

absl::Status Rootfs::Cover() {
  RETURN_IF_ERROR(FAILPOINT("runtime.rootfs.before_cover"));
  for (const std::string& path : plan_.spec->linux_.readonly_paths)
    RETURN_IF_ERROR(MakeReadOnly(path));
  for (const std::string& path : plan_.spec->linux_.masked_paths) RETURN_IF_ERROR(Mask(path));
  for (const oci::Mount& mount : plan_.spec->mounts) {
    const bool read_only =
        std::find(mount.options.begin(), mount.options.end(), "ro") != mount.options.end();
    if (!read_only || !fresh_dev_ || CleanPath(mount.destination) != "/dev") continue;
    UniqueFd dev(OpenIn(root_, "/dev", O_PATH | O_DIRECTORY));
    if (!dev.ok() || kernel::SetMountAttributes(dev.get(), 0, MOUNT_ATTR_RDONLY, 0) != 0) {
      return ErrnoError(errno, "make '/dev' read-only");
    }
  }
  if (!plan_.spec->root->readonly) return absl::OkStatus();
  if (kernel::SetMountAttributes(root_.get(), 0, MOUNT_ATTR_RDONLY, 0) != 0) {
    return ErrnoError(errno, "make the root read-only");
  }
  return absl::OkStatus();
}

absl::Status Rootfs::WriteSysctls() {
  const oci::StringMap& sysctls = plan_.spec->linux_.sysctl;
  if (sysctls.empty()) return absl::OkStatus();
  if (!proc_.ok()) {
    UniqueFd context(kernel::OpenFilesystem("proc"));
    if (!context.ok() ||
        kernel::Configure(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr) != 0) {
      return ErrnoError(errno, "make a procfs to write sysctls through");
    }
    proc_.Reset(kernel::MountFilesystem(context.get(), 0));
    if (!proc_.ok()) return ErrnoError(errno, "make a procfs to write sysctls through");
  }
  if (!IsOnProc(proc_)) return absl::InternalError("our procfs is none");
  for (const auto& [name, value] : sysctls) {
    const bool slashes = absl::StrContains(name, '/') &&
                         (!absl::StrContains(name, '.') || name.find('/') < name.find('.'));
    const std::string path =
        absl::StrCat("sys/", slashes ? name : absl::StrReplaceAll(name, {{".", "/"}, {"/", "."}}));
    absl::StatusOr<UniqueFd> file = sys::OpenBeneath(proc_, path, O_WRONLY);
    absl::Status status = file.ok() ? sys::WriteAll(*file, value) : file.status();
    RETURN_IF_ERROR(
        Annotate(status, absl::StrCat("set the sysctl ", Quote(name), " to ", Quote(value))));
  }
  return absl::OkStatus();
}

}  // namespace gantry::runtime
