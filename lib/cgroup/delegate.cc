#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/cgroup/cgroup.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::cgroup {
namespace {

// What kernels before 4.15, which have no such list, mean by delegation.
constexpr char kDelegatedFiles[] = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

}  // namespace

absl::Status Cgroup::Delegate(uid_t uid) const {
  RETURN_IF_ERROR(FAILPOINT("cgroup.delegate.before_chown"));
  const std::string directory = mode_ == Mode::kV2 ? DirectoryOf("") : "";
  if (directory.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(sys::UniqueFd fd, sys::Open(directory, O_RDONLY | O_DIRECTORY));
  constexpr gid_t kSameGroup = static_cast<gid_t>(-1);
  const auto error = [&](const char* file) {
    return sys::ErrnoError(errno, absl::StrCat("give '", directory, "/", file, "' to user ", uid));
  };
  if (::fchown(fd.get(), uid, kSameGroup) != 0) return error("");
  absl::StatusOr<std::string> listed = sys::ReadFile("/sys/kernel/cgroup/delegate");
  const std::string list = listed.ok() ? *listed : kDelegatedFiles;
  const std::vector<std::string> files = absl::StrSplit(list, '\n', absl::SkipEmpty());
  for (const std::string& file : files) {
    // Those of controllers that are not enabled here are not there.
    const int changed = ::fchownat(fd.get(), file.c_str(), uid, kSameGroup, AT_SYMLINK_NOFOLLOW);
    if (changed != 0 && errno != ENOENT) return error(file.c_str());
  }
  return absl::OkStatus();
}

}  // namespace gantry::cgroup
