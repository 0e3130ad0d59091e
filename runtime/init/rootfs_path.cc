#include "runtime/init/rootfs_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "runtime/init/mount_plan.h"

namespace gantry::runtime {

using sys::ErrnoError;
using sys::UniqueFd;

int OpenIn(const UniqueFd& root, const std::string& path, int flags, uint64_t resolve) {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve;
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

}  // namespace gantry::runtime
