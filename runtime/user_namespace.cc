#include "runtime/user_namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/process.h"
#include "runtime/id_maps.h"
#include "runtime/kernel.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace gantry::runtime {

absl::StatusOr<sys::UniqueFd> MakeUserNamespace(const std::vector<oci::IdMapping>& uids,
                                                const std::vector<oci::IdMapping>& gids) {
  int raw_pidfd = -1;
  const pid_t pid = kernel::Clone(CLONE_NEWUSER, &raw_pidfd, SIGCHLD);
  if (pid < 0) return sys::ErrnoError(errno, "make a user namespace for an id-mapped mount");
  if (pid == 0) {
    for (;;) ::pause();  // It only keeps the namespace until that is open.
  }
  sys::UniqueFd pidfd(raw_pidfd);
  absl::Cleanup end = [&] {
    (void)sys::SignalPidfd(pidfd, SIGKILL);
    siginfo_t info = {};
    while (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd.get()), &info,
                    WEXITED) != 0 &&
           errno == EINTR) {
    }
  };
  RETURN_IF_ERROR(WriteIdMaps(pid, uids, gids));
  sys::UniqueFd fd(::open(absl::StrCat("/proc/", pid, "/ns/user").c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.ok()) return sys::ErrnoError(errno, "open the user namespace of an id-mapped mount");
  return fd;
}

}  // namespace gantry::runtime
