// Rootfs: device nodes, the links beside them, the console.
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "runtime/init/mount_plan.h"
#include "runtime/init/rootfs.h"
#include "runtime/init/rootfs_path.h"
#include "runtime/kernel.h"

namespace gantry::runtime {

using sys::ErrnoError;
using sys::UniqueFd;

absl::Status Rootfs::MakeDevices() {
  static const struct {
    const char* path;
    int major, minor;
  } kNodes[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
                {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};
  for (const auto& node : kNodes) {
    oci::Device device{.type = "c",
                       .path = node.path,
                       .major = node.major,
                       .minor = node.minor,
                       .file_mode = 0666};
    const auto& own = plan_.spec->linux_.devices;
    const bool overridden = std::any_of(own.begin(), own.end(), [&](const oci::Device& other) {
      return CleanPath(other.path) == node.path;
    });
    if (!overridden) RETURN_IF_ERROR(MakeDevice(device));
  }
  for (const oci::Device& device : plan_.spec->linux_.devices) RETURN_IF_ERROR(MakeDevice(device));
  return MakeDeviceLinks();
}

absl::Status Rootfs::BindHostDevice(const oci::Device& device, const UniqueFd& directory,
                                    const std::string& name) {
  const dev_t number =
      ::makedev(static_cast<unsigned>(device.major), static_cast<unsigned>(device.minor));
  UniqueFd tree(kernel::OpenTree(AT_FDCWD, device.path.c_str(), OPEN_TREE_CLONE));
  struct stat info = {};
  if (!tree.ok() || ::fstat(tree.get(), &info) != 0 || info.st_rdev != number) {
    return absl::PermissionDeniedError(
        absl::StrCat("make the device ", Quote(device.path),
                     ": not permitted, and the host has no such device to bind instead"));
  }
  UniqueFd file(
      ::openat(directory.get(), name.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666));
  UniqueFd target(::openat(directory.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!target.ok() || kernel::MoveMount(tree.get(), target.get()) != 0) {
    return ErrnoError(errno, absl::StrCat("bind the device ", Quote(device.path)));
  }
  return absl::OkStatus();
}

absl::Status Rootfs::MakeDevice(const oci::Device& device) {
  RETURN_IF_ERROR(FAILPOINT("runtime.rootfs.before_device"));
  const std::string path = CleanPath(device.path);
  std::string parent, name;
  SplitPath(path, &parent, &name);
  ASSIGN_OR_RETURN(UniqueFd directory, OpenOrMakeDirectory(root_, parent, parent == "/dev"));
  const mode_t type = device.type == "b" ? S_IFBLK : device.type == "p" ? S_IFIFO : S_IFCHR;
  const dev_t number = type == S_IFIFO ? 0
                                       : ::makedev(static_cast<unsigned>(device.major),
                                                   static_cast<unsigned>(device.minor));
  const mode_t mode = device.file_mode.value_or(0666) & 07777;
  if (plan_.user_namespace && type != S_IFIFO) return BindHostDevice(device, directory, name);
  if (::mknodat(directory.get(), name.c_str(), type | mode, number) != 0) {
    if (errno == EPERM) return BindHostDevice(device, directory, name);
    if (errno != EEXIST) return ErrnoError(errno, absl::StrCat("make the device ", Quote(path)));
    struct stat info = {};
    if (::fstatat(directory.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 ||
        (info.st_mode & S_IFMT) != type || info.st_rdev != number) {
      return absl::FailedPreconditionError(absl::StrCat(
          "make the device ", Quote(path), ": the root file system has something else there"));
    }
  }
  const uid_t uid = device.uid.value_or(0);
  const gid_t gid = device.gid.value_or(0);
  if ((uid != 0 || gid != 0) &&
      ::fchownat(directory.get(), name.c_str(), uid, gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoError(errno, absl::StrCat("give the device ", Quote(path), " its owner"));
  }
  return absl::OkStatus();
}

absl::Status Rootfs::MakeDeviceLinks() {
  ASSIGN_OR_RETURN(UniqueFd dev, OpenOrMakeDirectory(root_, "/dev", true));
  const std::pair<const char*, const char*> links[] = {{"/proc/self/fd", "fd"},
                                                       {"/proc/self/fd/0", "stdin"},
                                                       {"/proc/self/fd/1", "stdout"},
                                                       {"/proc/self/fd/2", "stderr"},
                                                       {"/proc/kcore", "core"}};
  for (const auto& [target, name] : links) {
    if (::symlinkat(target, dev.get(), name) != 0 && errno != EEXIST) {
      return ErrnoError(errno, absl::StrCat("make the link '/dev/", name, "'"));
    }
  }
  const bool own_pts = std::any_of(plan_.mounts.begin(), plan_.mounts.end(),
                                   [](const MountPlan& m) { return m.destination == "/dev/pts"; });
  if (!own_pts) return absl::OkStatus();
  // The image's ptmx may be the host's node (5:2); the container has a pts of its own.
  if (::unlinkat(dev.get(), "ptmx", 0) != 0 && errno != ENOENT) {
    return ErrnoError(errno, "replace '/dev/ptmx'");
  }
  if (::symlinkat("pts/ptmx", dev.get(), "ptmx") != 0) return ErrnoError(errno, "make '/dev/ptmx'");
  return absl::OkStatus();
}

absl::Status Rootfs::MountConsole(const UniqueFd& slave) {
  ASSIGN_OR_RETURN(UniqueFd target, OpenOrMakeFile(root_, "/dev/console"));
  UniqueFd tree(kernel::OpenTree(slave.get(), "", OPEN_TREE_CLONE | AT_EMPTY_PATH));
  if (!tree.ok() || kernel::MoveMount(tree.get(), target.get()) != 0) {
    return ErrnoError(errno, "bind the terminal to '/dev/console'");
  }
  return absl::OkStatus();
}

}  // namespace gantry::runtime
