#include "services/engine/process_root.h"

#include <fcntl.h>
#include <sys/types.h>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"

namespace gantry::engine {

absl::StatusOr<sys::UniqueFd> OpenProcessRoot(int64_t pid) {
  const auto ended = [&] {
    return absl::FailedPreconditionError(
        absl::StrCat("process ", pid, " of the container has ended; start the container again"));
  };
  if (pid <= 0) return ended();
  // The pidfd pins the process: were it reaped and its number given away before the directory is
  // opened, the signal below would say so.
  absl::StatusOr<sys::UniqueFd> pidfd = sys::OpenPidfd(static_cast<pid_t>(pid));
  if (!pidfd.ok()) return ended();
  absl::StatusOr<sys::UniqueFd> root =
      sys::Open(absl::StrCat("/proc/", pid, "/root"), O_RDONLY | O_DIRECTORY);
  if (!root.ok() || !sys::SignalPidfd(*pidfd, 0).ok()) return ended();
  return root;
}

}  // namespace gantry::engine
