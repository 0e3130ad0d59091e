#include "runtime/init/rootfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "runtime/init/copy_up.h"
#include "runtime/kernel.h"

namespace gantry::runtime {
namespace {

using sys::ErrnoError;
using sys::UniqueFd;

std::string Quote(absl::string_view text) {
  return absl::StrCat("'", EscapeForTerminal(text), "'");
}

// openat2(2) from `root` as "/"; the error stays in errno. `path` may begin with '/'.
int OpenIn(const UniqueFd& root, const std::string& path, int flags, uint64_t extra = 0) {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | extra;
  long fd = -1;
  for (int attempt = 0; attempt < 32; ++attempt) {  // EAGAIN: raced with a rename; see openat2(2).
    fd = ::syscall(SYS_openat2, root.get(), path.c_str(), &how, sizeof how);
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) break;
  }
  return static_cast<int>(fd);
}

bool IsDirectory(const UniqueFd& fd) {
  struct stat info = {};
  return ::fstat(fd.get(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool IsOnProc(const UniqueFd& fd) {
  struct statfs info = {};
  return ::fstatfs(fd.get(), &info) == 0 && info.f_type == PROC_SUPER_MAGIC;
}

void SplitPath(const std::string& path, std::string* parent, std::string* name) {
  const size_t slash = path.rfind('/');
  *parent = slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
  *name = slash == std::string::npos ? path : path.substr(slash + 1);
}

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

// An empty regular file to mount a file on.
absl::StatusOr<UniqueFd> OpenOrMakeFile(const UniqueFd& root, const std::string& path) {
  UniqueFd existing(OpenIn(root, path, O_PATH));
  if (existing.ok()) return existing;
  if (errno != ENOENT) return ErrnoError(errno, absl::StrCat("open ", Quote(path), " in the root"));
  std::string parent, name;
  SplitPath(path, &parent, &name);
  ASSIGN_OR_RETURN(UniqueFd directory, OpenOrMakeDirectory(root, parent));
  UniqueFd made(::openat(directory.get(), name.c_str(),
                         O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!made.ok()) return ErrnoError(errno, absl::StrCat("make the file ", Quote(path)));
  UniqueFd target(::openat(directory.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!target.ok()) return ErrnoError(errno, absl::StrCat("open ", Quote(path)));
  return target;
}

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

namespace {

constexpr int kMaxLinks = 40;  // As the kernel.

absl::StatusOr<UniqueFd> OpenOrMake(const UniqueFd& root, const std::string& path, bool no_links,
                                    mode_t mode, int links) {
  UniqueFd existing(OpenIn(root, path, O_PATH | O_DIRECTORY, no_links ? RESOLVE_NO_SYMLINKS : 0));
  if (existing.ok()) return existing;
  if (errno == ELOOP && no_links) {
    return absl::FailedPreconditionError(absl::StrCat(
        Quote(path), " is a symbolic link in the root file system; it must be a directory"));
  }
  if (errno != ENOENT) {
    return ErrnoError(errno, absl::StrCat("open the directory ", Quote(path), " in the root"));
  }
  std::string parent, name;
  SplitPath(path, &parent, &name);
  ASSIGN_OR_RETURN(UniqueFd above, OpenOrMake(root, parent, no_links, mode, links));
  if (::mkdirat(above.get(), name.c_str(), mode) != 0) {
    if (errno != EEXIST) return ErrnoError(errno, absl::StrCat("make the directory ", Quote(path)));
    char target[PATH_MAX] = {};
    if (::readlinkat(above.get(), name.c_str(), target, sizeof target - 1) >= 0) {
      // A link to nothing: what it names is made, inside the root like everything else.
      if (no_links || links == 0) {
        return absl::FailedPreconditionError(
            absl::StrCat(Quote(path), " is a symbolic link to nothing"));
      }
      return OpenOrMake(root,
                        CleanPath(target[0] == '/' ? target : absl::StrCat(parent, "/", target)),
                        no_links, mode, links - 1);
    }
  }
  // Not through a link that somebody put there in between.
  UniqueFd made(::openat(above.get(), name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!made.ok()) return ErrnoError(errno, absl::StrCat("open the directory ", Quote(path)));
  return made;
}

}  // namespace

absl::StatusOr<UniqueFd> OpenOrMakeDirectory(const UniqueFd& root, const std::string& path,
                                             bool no_links, mode_t mode) {
  return OpenOrMake(root, path, no_links, mode, kMaxLinks);
}

absl::Status Rootfs::Attach() {
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
    absl::Status status = MountOne(mount);
    if (!status.ok()) {
      return Annotate(status, absl::StrCat("mount ", mount.bind ? Quote(mount.source) : mount.type,
                                           " on ", Quote(mount.destination)));
    }
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
