#include "lib/sys/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "lib/sys/temp_dir.h"

namespace gantry::sys {
namespace {

struct Word {
  const char* name;
  unsigned long set;
  unsigned long clear;
};

constexpr Word kWords[] = {
    {"async", 0, MS_SYNCHRONOUS},
    {"atime", 0, MS_NOATIME},
    {"bind", MS_BIND, 0},
    {"defaults", 0, 0},
    {"dev", 0, MS_NODEV},
    {"diratime", 0, MS_NODIRATIME},
    {"dirsync", MS_DIRSYNC, 0},
    {"exec", 0, MS_NOEXEC},
    {"lazytime", MS_LAZYTIME, 0},
    {"mand", MS_MANDLOCK, 0},
    {"noatime", MS_NOATIME, 0},
    {"nodev", MS_NODEV, 0},
    {"nodiratime", MS_NODIRATIME, 0},
    {"noexec", MS_NOEXEC, 0},
    {"nolazytime", 0, MS_LAZYTIME},
    {"nomand", 0, MS_MANDLOCK},
    {"norelatime", 0, MS_RELATIME},
    {"nostrictatime", 0, MS_STRICTATIME},
    {"nosuid", MS_NOSUID, 0},
    {"nosymfollow", MS_NOSYMFOLLOW, 0},
    {"rbind", MS_BIND | MS_REC, 0},
    {"relatime", MS_RELATIME, 0},
    {"remount", MS_REMOUNT, 0},
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"strictatime", MS_STRICTATIME, 0},
    {"suid", 0, MS_NOSUID},
    {"sync", MS_SYNCHRONOUS, 0},
};

constexpr Word kPropagation[] = {
    {"private", MS_PRIVATE, 0},       {"rprivate", MS_PRIVATE | MS_REC, 0},
    {"shared", MS_SHARED, 0},         {"rshared", MS_SHARED | MS_REC, 0},
    {"slave", MS_SLAVE, 0},           {"rslave", MS_SLAVE | MS_REC, 0},
    {"unbindable", MS_UNBINDABLE, 0}, {"runbindable", MS_UNBINDABLE | MS_REC, 0},
};

// Words for programs such as mount(8), systemd and containerd.
bool SpeaksToPrograms(absl::string_view option) {
  return option.empty() || option == "auto" || option == "noauto" || option == "user" ||
         option == "nouser" || option == "users" || option == "_netdev" || option == "nofail" ||
         absl::StartsWith(option, "x-") || absl::StartsWith(option, "X-");
}

// mount(2) copies one page of data at most, its last byte being the terminator.
constexpr size_t kMaxDataBytes = 4095;
// fsconfig(2) copies strings of up to 256 bytes with their terminator.
constexpr size_t kMaxFsconfigBytes = 255;

std::string Describe(const MountSpec& mount, const std::string& target) {
  return absl::StrCat("mount ", mount.type.empty() ? "bind" : mount.type, " '", mount.source,
                      "' on '", target, "'");
}

int Fsopen(const char* type) {
  return static_cast<int>(::syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
}

int Fsconfig(const UniqueFd& context, unsigned command, const char* key, const char* value) {
  return static_cast<int>(::syscall(SYS_fsconfig, context.get(), command, key, value, 0));
}

struct OverlayLayers {
  std::vector<std::string> lower;
  std::string upper;
  std::string work;
  std::vector<std::string> rest;
};

OverlayLayers TakeLayers(const std::vector<std::string>& data) {
  OverlayLayers layers;
  for (const std::string& option : data) {
    absl::string_view view = option;
    if (absl::ConsumePrefix(&view, "lowerdir=")) {
      layers.lower = absl::StrSplit(view, ':');
    } else if (absl::ConsumePrefix(&view, "upperdir=")) {
      layers.upper = std::string(view);
    } else if (absl::ConsumePrefix(&view, "workdir=")) {
      layers.work = std::string(view);
    } else {
      layers.rest.push_back(option);
    }
  }
  return layers;
}

unsigned MountAttributes(unsigned long flags) {
  unsigned attributes = 0;
  if (flags & MS_RDONLY) attributes |= MOUNT_ATTR_RDONLY;
  if (flags & MS_NOSUID) attributes |= MOUNT_ATTR_NOSUID;
  if (flags & MS_NODEV) attributes |= MOUNT_ATTR_NODEV;
  if (flags & MS_NOEXEC) attributes |= MOUNT_ATTR_NOEXEC;
  if (flags & MS_NODIRATIME) attributes |= MOUNT_ATTR_NODIRATIME;
  if (flags & MS_NOATIME) attributes |= MOUNT_ATTR_NOATIME;
  if (flags & MS_STRICTATIME) attributes |= MOUNT_ATTR_STRICTATIME;
  return attributes;
}

// Layer by layer through the mount API; false when this kernel or these paths do not allow it.
bool MountOverlayByLayer(const OverlayLayers& layers, unsigned long flags,
                         const std::string& source, const std::string& target) {
  UniqueFd context(Fsopen("overlay"));
  if (!context.ok()) return false;
  const auto set = [&](const char* key, const std::string& value) {
    return value.size() <= kMaxFsconfigBytes &&
           Fsconfig(context, FSCONFIG_SET_STRING, key, value.c_str()) == 0;
  };
  if (!set("source", source.empty() ? "overlay" : source)) return false;
  for (const std::string& layer : layers.lower) {
    if (!set("lowerdir+", layer)) return false;
  }
  if (!layers.upper.empty() && !set("upperdir", layers.upper)) return false;
  if (!layers.work.empty() && !set("workdir", layers.work)) return false;
  for (const std::string& option : layers.rest) {
    const size_t equals = option.find('=');
    const bool ok = equals == std::string::npos
                        ? Fsconfig(context, FSCONFIG_SET_FLAG, option.c_str(), nullptr) == 0
                        : set(option.substr(0, equals).c_str(), option.substr(equals + 1));
    if (!ok) return false;
  }
  if ((flags & MS_RDONLY) && Fsconfig(context, FSCONFIG_SET_FLAG, "ro", nullptr) != 0) return false;
  if (Fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr) != 0) return false;
  UniqueFd mount(static_cast<int>(
      ::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, MountAttributes(flags))));
  return mount.ok() && ::syscall(SYS_move_mount, mount.get(), "", AT_FDCWD, target.c_str(),
                                 MOVE_MOUNT_F_EMPTY_PATH) == 0;
}

struct RelativeMount {
  const char* directory;
  const char* source;
  const char* target;
  unsigned long flags;
  const char* data;
  int error;
};

// Runs in a child that shares our memory but has a working directory of its own.
int RunRelativeMount(void* argument) {
  RelativeMount& plan = *static_cast<RelativeMount*>(argument);
  if (::chdir(plan.directory) != 0 ||
      ::mount(plan.source, plan.target, "overlay", plan.flags, plan.data) != 0) {
    plan.error = errno;
  }
  ::_exit(0);
}

// The longest directory ("…/") that all of `paths` begin with; at least "/".
std::string CommonDirectory(const std::vector<std::string>& paths) {
  std::string common = paths.front();
  for (const std::string& path : paths) {
    const size_t limit = std::min(common.size(), path.size());
    size_t same = 0;
    while (same < limit && common[same] == path[same]) ++same;
    common.resize(same);
  }
  const size_t slash = common.rfind('/');
  return slash == std::string::npos ? std::string() : common.substr(0, slash + 1);
}

// The working directory belongs to the whole process, so a child that lives for two system calls
// changes its own instead of ours: other threads notice nothing.
absl::Status MountOverlayRelative(OverlayLayers layers, const MountOptions& options,
                                  const MountSpec& mount, const std::string& target) {
  const std::string common = CommonDirectory(layers.lower);
  if (common.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Describe(mount, target), ": lower directories must be absolute paths"));
  }
  for (std::string& layer : layers.lower) layer = layer.substr(common.size());
  if (std::any_of(layers.lower.begin(), layers.lower.end(),
                  [](const std::string& layer) { return layer.empty(); })) {
    return absl::InvalidArgumentError(
        absl::StrCat(Describe(mount, target), ": a lower directory is empty or holds another"));
  }
  std::vector<std::string> words = {absl::StrCat("lowerdir=", absl::StrJoin(layers.lower, ":"))};
  if (!layers.upper.empty()) words.push_back(absl::StrCat("upperdir=", layers.upper));
  if (!layers.work.empty()) words.push_back(absl::StrCat("workdir=", layers.work));
  words.insert(words.end(), layers.rest.begin(), layers.rest.end());
  const std::string data = absl::StrJoin(words, ",");
  if (data.size() > kMaxDataBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Describe(mount, target), ": ", layers.lower.size(), " layers need ",
                     data.size(), " bytes of options and this kernel takes ", kMaxDataBytes,
                     "; use an image with fewer layers or Linux 6.8"));
  }
  constexpr size_t kStackBytes = 64 << 10;
  void* stack = ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return ErrnoError(errno, "allocate a stack");
  RelativeMount plan = {common.c_str(), mount.source.c_str(), target.c_str(),
                        options.flags,  data.c_str(),         0};
  sigset_t all;
  sigset_t saved;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &saved);
  // No exit signal: nobody's SIGCHLD handling sees this child, and __WCLONE finds it.
  const int pid = ::clone(RunRelativeMount, static_cast<char*>(stack) + kStackBytes,
                          CLONE_VM | CLONE_VFORK, &plan);
  const int clone_error = errno;
  if (pid > 0) {
    while (::waitpid(pid, nullptr, __WCLONE) < 0 && errno == EINTR) {
    }
  }
  ::pthread_sigmask(SIG_SETMASK, &saved, nullptr);
  ::munmap(stack, kStackBytes);
  if (pid < 0) return ErrnoError(clone_error, "start a child that mounts");
  if (plan.error != 0) return ErrnoError(plan.error, Describe(mount, target));
  return absl::OkStatus();
}

absl::Status MountOne(const MountSpec& mount, const std::string& target);

// --- Id-mapped layers
// -----------------------------------------------------------------------------

// The child's whole program: it keeps a user namespace alive until that is open.
int WaitForever(void*) {
  for (;;) ::syscall(SYS_pause);
}

// "0:100000:65536", or several joined by ',', as lines for /proc/PID/uid_map.
absl::StatusOr<std::string> IdMapLines(absl::string_view map) {
  std::string lines;
  for (absl::string_view part : absl::StrSplit(map, ',', absl::SkipEmpty())) {
    const std::vector<absl::string_view> numbers = absl::StrSplit(part, ':');
    uint32_t value;
    if (numbers.size() != 3 || !absl::SimpleAtoi(numbers[0], &value) ||
        !absl::SimpleAtoi(numbers[1], &value) || !absl::SimpleAtoi(numbers[2], &value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("id map '", part, "' is not CONTAINER:HOST:SIZE"));
    }
    absl::StrAppend(&lines, numbers[0], " ", numbers[1], " ", numbers[2], "\n");
  }
  if (lines.empty()) return absl::InvalidArgumentError("an id map is empty");
  return lines;
}

// A user namespace with these maps and nobody in it.
absl::StatusOr<UniqueFd> MakeUserNamespace(const MountOptions& options) {
  ASSIGN_OR_RETURN(const std::string uids, IdMapLines(options.uid_map));
  ASSIGN_OR_RETURN(const std::string gids, IdMapLines(options.gid_map));
  constexpr size_t kStackBytes = 16 << 10;
  void* stack = ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return ErrnoError(errno, "allocate a stack");
  sigset_t all;
  sigset_t saved;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &saved);
  int raw_pidfd = -1;
  const int pid = ::clone(WaitForever, static_cast<char*>(stack) + kStackBytes,
                          CLONE_VM | CLONE_NEWUSER | CLONE_PIDFD, nullptr, &raw_pidfd);
  const int clone_error = errno;
  ::pthread_sigmask(SIG_SETMASK, &saved, nullptr);
  absl::StatusOr<UniqueFd> result = absl::UnknownError("no user namespace");
  if (pid < 0) {
    result = ErrnoError(clone_error, "make a user namespace for id-mapped layers");
  } else {
    const UniqueFd pidfd(raw_pidfd);
    absl::Status status = WriteControlFile(absl::StrCat("/proc/", pid, "/uid_map"), uids);
    if (status.ok()) status = WriteControlFile(absl::StrCat("/proc/", pid, "/gid_map"), gids);
    result = status.ok() ? Open(absl::StrCat("/proc/", pid, "/ns/user"), O_RDONLY)
                         : absl::StatusOr<UniqueFd>(status);
    (void)SignalPidfd(pidfd, SIGKILL);
    while (::waitpid(pid, nullptr, __WCLONE) < 0 && errno == EINTR) {
    }
  }
  ::munmap(stack, kStackBytes);
  return result;
}

// Mounts `source` once more at `target`, with its owners shifted.
absl::Status BindIdMapped(const std::string& source, const std::string& target, bool recursive,
                          const UniqueFd& user_namespace) {
  const unsigned depth = recursive ? AT_RECURSIVE : 0;
  const UniqueFd tree(static_cast<int>(::syscall(SYS_open_tree, AT_FDCWD, source.c_str(),
                                                 OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | depth)));
  if (!tree.ok()) return ErrnoError(errno, absl::StrCat("clone the mount tree at '", source, "'"));
  mount_attr attributes = {};
  attributes.attr_set = MOUNT_ATTR_IDMAP;
  attributes.userns_fd = static_cast<uint64_t>(user_namespace.get());
  if (::syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH | depth, &attributes,
                sizeof attributes) != 0) {
    return ErrnoError(errno, absl::StrCat("shift the owners of '", source,
                                          "' (its file system must support id-mapped mounts)"));
  }
  if (::syscall(SYS_move_mount, tree.get(), "", AT_FDCWD, target.c_str(),
                MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return ErrnoError(errno, absl::StrCat("mount '", source, "' on '", target, "'"));
  }
  return absl::OkStatus();
}

// `uidmap=` and `gidmap=` speak to us, not to the kernel. A bind is shifted itself. Of an overlay
// the lower directories are, each through a mount of its own in a directory of ours; the overlay
// keeps private copies of them, so that the directory is gone when it is mounted.
absl::Status MountIdMapped(const MountSpec& mount, const MountOptions& options,
                           const std::string& target) {
  ASSIGN_OR_RETURN(const UniqueFd user_namespace, MakeUserNamespace(options));
  MountSpec plain = mount;
  plain.options.erase(std::remove_if(plain.options.begin(), plain.options.end(),
                                     [](const std::string& option) {
                                       return absl::StartsWith(option, "uidmap=") ||
                                              absl::StartsWith(option, "gidmap=");
                                     }),
                      plain.options.end());
  if (options.flags & MS_BIND) {
    RETURN_IF_ERROR(
        BindIdMapped(mount.source, target, (options.flags & MS_REC) != 0, user_namespace));
    const unsigned long later = options.flags & ~static_cast<unsigned long>(MS_REC);
    if (later != MS_BIND &&
        ::mount(nullptr, target.c_str(), nullptr, later | MS_REMOUNT, nullptr) != 0) {
      const absl::Status status = ErrnoError(errno, Describe(mount, target));
      ::umount2(target.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
      return status;
    }
    return absl::OkStatus();
  }
  if (mount.type != "overlay") {
    return absl::InvalidArgumentError(absl::StrCat(
        Describe(mount, target), ": uidmap= and gidmap= are for bind and overlay mounts"));
  }
  ASSIGN_OR_RETURN(const TempDir layers, TempDir::Create());
  absl::Status status;
  for (std::string& option : plain.options) {
    absl::string_view lower = option;
    if (!absl::ConsumePrefix(&lower, "lowerdir=")) continue;
    std::vector<std::string> shifted;
    for (absl::string_view layer : absl::StrSplit(lower, ':')) {
      shifted.push_back(absl::StrCat(layers.path(), "/", shifted.size()));
      status = MakeDirectories(shifted.back());
      if (status.ok()) {
        status = BindIdMapped(std::string(layer), shifted.back(), false, user_namespace);
      }
      if (!status.ok()) break;
    }
    option = absl::StrCat("lowerdir=", absl::StrJoin(shifted, ":"));
    if (!status.ok()) break;
  }
  if (status.ok()) status = MountOne(plain, target);
  return FirstError(status, UnmountTree(layers.path()));
}

absl::Status MountOne(const MountSpec& mount, const std::string& target) {
  RETURN_IF_ERROR(FAILPOINT("sys.mount.before"));
  const MountOptions options = ParseMountOptions(mount.options);
  if (!options.uid_map.empty() || !options.gid_map.empty()) {
    return MountIdMapped(mount, options, target);
  }
  const std::string data = absl::StrJoin(options.data, ",");
  const bool bind = (options.flags & MS_BIND) != 0;
  // A bind ignores all flags but MS_REC; the others follow in a remount.
  const unsigned long first_flags = bind ? options.flags & (MS_BIND | MS_REC) : options.flags;
  if (!bind && mount.type == "overlay" && data.size() > kMaxDataBytes) {
    OverlayLayers layers = TakeLayers(options.data);
    if (layers.lower.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(Describe(mount, target), ": no lowerdir"));
    }
    if (!MountOverlayByLayer(layers, options.flags, mount.source, target)) {
      RETURN_IF_ERROR(MountOverlayRelative(std::move(layers), options, mount, target));
    }
  } else if (data.size() > kMaxDataBytes) {
    return absl::InvalidArgumentError(absl::StrCat(Describe(mount, target), ": options of ",
                                                   data.size(), " bytes; at most ", kMaxDataBytes));
  } else if (::mount(mount.source.c_str(), target.c_str(), mount.type.c_str(), first_flags,
                     data.empty() ? nullptr : data.c_str()) != 0) {
    return ErrnoError(errno, Describe(mount, target));
  }
  const unsigned long later = options.flags & ~static_cast<unsigned long>(MS_REC);
  if (bind && later != MS_BIND &&
      ::mount(nullptr, target.c_str(), nullptr, later | MS_REMOUNT, nullptr) != 0) {
    const absl::Status status = ErrnoError(errno, Describe(mount, target));
    ::umount2(target.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    return status;
  }
  if (options.propagation != 0 &&
      ::mount(nullptr, target.c_str(), nullptr, options.propagation, nullptr) != 0) {
    const absl::Status status = ErrnoError(errno, Describe(mount, target));
    ::umount2(target.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    return status;
  }
  return FAILPOINT("sys.mount.after");
}

// The directory part resolved, the last part kept: mountinfo holds resolved paths.
absl::StatusOr<std::string> ResolveDirectory(const std::string& path) {
  char resolved[PATH_MAX];
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  const size_t slash = trimmed.rfind('/');
  if (trimmed == "/") return trimmed;
  const std::string parent =
      slash == std::string::npos ? "." : (slash == 0 ? "/" : trimmed.substr(0, slash));
  const std::string name = slash == std::string::npos ? trimmed : trimmed.substr(slash + 1);
  if (name.empty() || name == "." || name == "..") {
    return absl::InvalidArgumentError(absl::StrCat("path '", path, "' does not end in a name"));
  }
  if (::realpath(parent.c_str(), resolved) == nullptr) {
    return ErrnoError(errno, absl::StrCat("resolve '", parent, "'"));
  }
  return absl::StrCat(resolved, absl::string_view(resolved) == "/" ? "" : "/", name);
}

}  // namespace

MountOptions ParseMountOptions(const std::vector<std::string>& options) {
  MountOptions parsed;
  for (const std::string& option : options) {
    const auto named = [&](const Word& word) { return option == word.name; };
    if (const Word* word = std::find_if(std::begin(kWords), std::end(kWords), named);
        word != std::end(kWords)) {
      parsed.flags = (parsed.flags | word->set) & ~word->clear;
    } else if (const Word* propagation =
                   std::find_if(std::begin(kPropagation), std::end(kPropagation), named);
               propagation != std::end(kPropagation)) {
      parsed.propagation = propagation->set;
    } else if (absl::StartsWith(option, "uidmap=")) {
      parsed.uid_map = option.substr(7);
    } else if (absl::StartsWith(option, "gidmap=")) {
      parsed.gid_map = option.substr(7);
    } else if (!SpeaksToPrograms(option)) {
      parsed.data.push_back(option);
    }
  }
  return parsed;
}

absl::Status MountAll(const std::vector<MountSpec>& mounts, const std::string& directory) {
  for (size_t i = 0; i < mounts.size(); ++i) {
    std::string target = directory;
    absl::Status status;
    if (!mounts[i].target.empty()) {
      const std::vector<absl::string_view> parts = absl::StrSplit(mounts[i].target, '/');
      if (std::find(parts.begin(), parts.end(), "..") != parts.end()) {
        status = absl::InvalidArgumentError(
            absl::StrCat("mount target '", mounts[i].target, "' leaves its directory"));
      }
      absl::StrAppend(&target, "/", mounts[i].target);
    }
    if (status.ok()) status = MountOne(mounts[i], target);
    if (status.ok()) continue;
    // The first error is what the caller needs; what was mounted before it lies at or below.
    if (i > 0) (void)UnmountTree(directory);
    return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> MountPointsBelow(const std::string& path) {
  absl::StatusOr<std::string> resolved = ResolveDirectory(path);
  if (absl::IsNotFound(resolved.status())) return std::vector<std::string>();
  RETURN_IF_ERROR(resolved.status());
  const std::string prefix = *resolved == "/" ? "/" : absl::StrCat(*resolved, "/");
  ASSIGN_OR_RETURN(std::string table, ReadFile("/proc/self/mountinfo", 64 << 20));
  std::vector<std::string> points;
  for (absl::string_view line : absl::StrSplit(table, '\n', absl::SkipEmpty())) {
    // 36 35 98:0 /root /mount/point rw,noatime …
    for (int field = 0; field < 4; ++field) {
      const size_t space = line.find(' ');
      line.remove_prefix(space == absl::string_view::npos ? line.size() : space + 1);
    }
    std::string point = UnescapeMountinfo(line.substr(0, line.find(' ')));
    if (point == *resolved || absl::StartsWith(point, prefix)) points.push_back(std::move(point));
  }
  return points;
}

absl::Status UnmountTree(const std::string& path) {
  RETURN_IF_ERROR(FAILPOINT("sys.unmount.before"));
  // The everyday case, one mount without others below it, needs no look at the table.
  bool unmounted = false;
  while (::umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) unmounted = true;
  if (errno == ENOENT || (errno == EINVAL && unmounted)) return absl::OkStatus();
  if (errno != EBUSY && errno != EINVAL) {
    return ErrnoError(errno, absl::StrCat("unmount '", path, "'"));
  }
  ASSIGN_OR_RETURN(std::vector<std::string> points, MountPointsBelow(path));
  absl::Status first;
  for (auto point = points.rbegin(); point != points.rend(); ++point) {
    if (::umount2(point->c_str(), UMOUNT_NOFOLLOW) == 0) continue;
    if (errno == EBUSY && ::umount2(point->c_str(), UMOUNT_NOFOLLOW | MNT_DETACH) == 0) continue;
    // Detached together with its parent, or by somebody else, meanwhile.
    if (errno == EINVAL || errno == ENOENT) continue;
    first = FirstError(first, ErrnoError(errno, absl::StrCat("unmount '", *point, "'")));
  }
  return first;
}

std::string UnescapeMountinfo(absl::string_view field) {
  std::string text;
  text.reserve(field.size());
  for (size_t i = 0; i < field.size(); ++i) {
    const auto octal = [&](size_t at) { return field[at] >= '0' && field[at] <= '7'; };
    if (field[i] == '\\' && i + 3 < field.size() && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      text.push_back(static_cast<char>((field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 +
                                       (field[i + 3] - '0')));
      i += 3;
    } else {
      text.push_back(field[i]);
    }
  }
  return text;
}

}  // namespace gantry::sys
