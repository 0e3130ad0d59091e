#include "lib/netlink/network_namespace.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include <cerrno>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::netlink {
namespace {

constexpr char kOwnNamespace[] = "/proc/thread-self/ns/net";

struct Job {
  const std::function<absl::Status()>& work;
  absl::Status result;
};

// Runs `work` on a thread of its own and hands its result out. Not std::thread: that one throws
// when there are no more threads to be had.
absl::Status OnFreshThread(const std::function<absl::Status()>& work) {
  Job job{work, absl::OkStatus()};
  pthread_t thread;
  const int error = ::pthread_create(
      &thread, nullptr,
      [](void* argument) -> void* {
        Job& todo = *static_cast<Job*>(argument);
        todo.result = todo.work();
        return nullptr;
      },
      &job);
  if (error != 0) return sys::ErrnoError(error, "start a thread for a network namespace");
  ::pthread_join(thread, nullptr);
  return job.result;
}

absl::Status Pin(const std::string& path) {
  RETURN_IF_ERROR(FAILPOINT("netlink.make_namespace.before_mount"));
  if (::mount(kOwnNamespace, path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("pin a network namespace to '", path, "'"));
  }
  return FAILPOINT("netlink.make_namespace.after_mount");
}

}  // namespace

absl::StatusOr<sys::UniqueFd> MakeNamespace(
    const std::string& path, const std::function<absl::Status(const sys::UniqueFd&)>& inside) {
  RETURN_IF_ERROR(sys::Open(path, O_CREAT | O_EXCL | O_WRONLY, 0600).status());
  absl::Cleanup remove = [&] { RemoveNamespace(path).IgnoreError(); };
  sys::UniqueFd made;
  RETURN_IF_ERROR(OnFreshThread([&]() -> absl::Status {
    if (::unshare(CLONE_NEWNET) != 0) {
      return sys::ErrnoError(errno, "make a network namespace");
    }
    RETURN_IF_ERROR(Pin(path));
    ASSIGN_OR_RETURN(made, sys::Open(kOwnNamespace, O_RDONLY));
    return inside(made);
  }));
  std::move(remove).Cancel();
  return made;
}

absl::StatusOr<sys::UniqueFd> OpenNamespace(const std::string& path) {
  ASSIGN_OR_RETURN(sys::UniqueFd file, sys::Open(path, O_RDONLY | O_NOFOLLOW));
  struct statfs fs;
  if (::fstatfs(file.get(), &fs) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("look at '", path, "'"));
  }
  if (fs.f_type != NSFS_MAGIC || ::ioctl(file.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
    return absl::FailedPreconditionError(
        absl::StrCat("'", path, "' is not a network namespace any more"));
  }
  return file;
}

absl::Status RunInNamespace(const sys::UniqueFd& network_namespace,
                            const std::function<absl::Status()>& inside) {
  return OnFreshThread([&]() -> absl::Status {
    if (::setns(network_namespace.get(), CLONE_NEWNET) != 0) {
      return sys::ErrnoError(errno, "enter a network namespace");
    }
    return inside();
  });
}

absl::Status RemoveNamespace(const std::string& path) {
  // Detached, since a process may have its working files open below; EINVAL: not mounted.
  if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL &&
      errno != ENOENT) {
    return sys::ErrnoError(errno, absl::StrCat("unpin the network namespace '", path, "'"));
  }
  RETURN_IF_ERROR(FAILPOINT("netlink.remove_namespace.after_umount"));
  return sys::Unlink(path);
}

}  // namespace gantry::netlink
