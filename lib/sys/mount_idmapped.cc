// Mounts whose owners are shifted by `uidmap=` and `gidmap=`.
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/mount_ways.h"
#include "lib/sys/process.h"
#include "lib/sys/temp_dir.h"
#include "lib/sys/unique_fd.h"

namespace gantry::sys::mount_ways {
namespace {

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

}  // namespace

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

}  // namespace gantry::sys::mount_ways
