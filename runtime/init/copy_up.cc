#include "runtime/init/copy_up.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"

namespace gantry::runtime {
namespace {

constexpr int kMaxLevels = 64;

absl::Status Failed(const char* name) {
  return sys::ErrnoError(errno,
                         absl::StrCat("copy '", EscapeForTerminal(name), "' into the tmpfs"));
}

absl::Status CopyLevel(int from, int to, int levels);

absl::Status CopyFile(int from, int to, const char* name, const struct stat& info) {
  sys::UniqueFd in(::openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  sys::UniqueFd out(::openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!in.ok() || !out.ok()) return Failed(name);
  for (;;) {
    const ssize_t sent = ::sendfile(out.get(), in.get(), nullptr, 1 << 30);
    if (sent == 0) break;
    if (sent < 0 && errno != EINTR) return Failed(name);
  }
  if (::fchown(out.get(), info.st_uid, info.st_gid) != 0 ||
      ::fchmod(out.get(), info.st_mode & 07777) != 0) {
    return Failed(name);
  }
  return absl::OkStatus();
}

absl::Status CopyEntry(int from, int to, const char* name, int levels) {
  struct stat info = {};
  if (::fstatat(from, name, &info, AT_SYMLINK_NOFOLLOW) != 0) return Failed(name);
  if (S_ISREG(info.st_mode)) return CopyFile(from, to, name, info);
  if (S_ISLNK(info.st_mode)) {
    char target[PATH_MAX] = {};
    if (::readlinkat(from, name, target, sizeof target - 1) < 0 ||
        ::symlinkat(target, to, name) != 0 ||
        ::fchownat(to, name, info.st_uid, info.st_gid, AT_SYMLINK_NOFOLLOW) != 0) {
      return Failed(name);
    }
    return absl::OkStatus();
  }
  if (!S_ISDIR(info.st_mode)) return absl::OkStatus();
  if (levels == 0)
    return absl::InvalidArgumentError("tmpcopyup: nested deeper than 64 directories");
  if (::mkdirat(to, name, 0700) != 0) return Failed(name);
  sys::UniqueFd in(::openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  sys::UniqueFd out(::openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!in.ok() || !out.ok()) return Failed(name);
  RETURN_IF_ERROR(CopyLevel(in.get(), out.get(), levels - 1));
  if (::fchown(out.get(), info.st_uid, info.st_gid) != 0 ||
      ::fchmod(out.get(), info.st_mode & 07777) != 0) {
    return Failed(name);
  }
  return absl::OkStatus();
}

absl::Status CopyLevel(int from, int to, int levels) {
  const int again = ::openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  std::unique_ptr<DIR, int (*)(DIR*)> directory(again < 0 ? nullptr : ::fdopendir(again),
                                                &::closedir);
  if (directory == nullptr) return Failed(".");
  while (const dirent* entry = ::readdir(directory.get())) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    RETURN_IF_ERROR(CopyEntry(from, to, entry->d_name, levels));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CopyTree(const sys::UniqueFd& from, const sys::UniqueFd& to) {
  return CopyLevel(from.get(), to.get(), kMaxLevels);
}

}  // namespace gantry::runtime
