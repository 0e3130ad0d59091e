#include "services/engine/tree_copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::engine {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kCopyBytes = 1 << 30;

absl::StatusOr<std::vector<std::string>> Names(const sys::UniqueFd& directory) {
  // A descriptor of its own: the stream owns it, and its offset is not shared.
  const int copy = ::openat(directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return sys::ErrnoError(errno, "open a directory to copy");
  std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(copy), ::closedir);
  if (stream == nullptr) {
    ::close(copy);
    return sys::ErrnoError(errno, "read a directory to copy");
  }
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  return names;
}

// SECURITY-RULES 26: only what a program can rely on and the host does not act upon.
void CopyAttributes(int from, int to) {
  char names[4096];
  const ssize_t size = ::flistxattr(from, names, sizeof names);
  for (ssize_t at = 0; at < size; at += static_cast<ssize_t>(::strlen(names + at)) + 1) {
    const absl::string_view name = names + at;
    if (name != "security.capability" && !absl::StartsWith(name, "user.")) continue;
    if (absl::StartsWith(name, "user.overlay.")) continue;
    char value[4096];
    const ssize_t length = ::fgetxattr(from, names + at, value, sizeof value);
    if (length >= 0) (void)::fsetxattr(to, names + at, value, static_cast<size_t>(length), 0);
  }
}

absl::Status SetMeta(int fd, const struct stat& info) {
  const timespec times[2] = {info.st_atim, info.st_mtim};
  // Owner first: chown clears the set-user-id bits that chmod then restores.
  if (::fchown(fd, info.st_uid, info.st_gid) != 0 || ::fchmod(fd, info.st_mode & 07777) != 0 ||
      ::futimens(fd, times) != 0) {
    return sys::ErrnoError(errno, "set owner and mode of a copied file");
  }
  return absl::OkStatus();
}

absl::Status CopyFile(const sys::UniqueFd& from_directory, const sys::UniqueFd& to_directory,
                      const std::string& name, const struct stat& info) {
  ASSIGN_OR_RETURN(sys::UniqueFd from,
                   sys::OpenAt(from_directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  ASSIGN_OR_RETURN(sys::UniqueFd to,
                   sys::OpenAt(to_directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  while (true) {
    const ssize_t moved = ::sendfile(to.get(), from.get(), nullptr, kCopyBytes);
    if (moved == 0) break;
    if (moved < 0 && errno != EINTR) {
      return sys::ErrnoError(errno, absl::StrCat("copy the file '", name, "'"));
    }
  }
  RETURN_IF_ERROR(SetMeta(to.get(), info));
  CopyAttributes(from.get(), to.get());
  return absl::OkStatus();
}

absl::Status CopyLink(const sys::UniqueFd& from, const sys::UniqueFd& to, const std::string& name,
                      const struct stat& info) {
  char target[4096];
  const ssize_t size = ::readlinkat(from.get(), name.c_str(), target, sizeof target - 1);
  if (size < 0) return sys::ErrnoError(errno, absl::StrCat("read the link '", name, "'"));
  target[size] = '\0';
  const timespec times[2] = {info.st_atim, info.st_mtim};
  if (::symlinkat(target, to.get(), name.c_str()) != 0 ||
      ::fchownat(to.get(), name.c_str(), info.st_uid, info.st_gid, AT_SYMLINK_NOFOLLOW) != 0 ||
      ::utimensat(to.get(), name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("copy the link '", name, "'"));
  }
  return absl::OkStatus();
}

absl::Status CopyNode(const sys::UniqueFd& to, const std::string& name, const struct stat& info) {
  if (::mknodat(to.get(), name.c_str(), info.st_mode, info.st_rdev) != 0 ||
      ::fchownat(to.get(), name.c_str(), info.st_uid, info.st_gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("copy the node '", name, "'"));
  }
  return absl::OkStatus();
}

absl::Status CopyBelow(const sys::UniqueFd& from, const sys::UniqueFd& to, dev_t device,
                       int depth) {
  if (depth > kMaxDepth) {
    return absl::ResourceExhaustedError("the directory to copy has more than 64 levels");
  }
  ASSIGN_OR_RETURN(std::vector<std::string> names, Names(from));
  for (const std::string& name : names) {
    struct stat info = {};
    if (::fstatat(from.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      return sys::ErrnoError(errno, absl::StrCat("stat '", name, "'"));
    }
    if (S_ISREG(info.st_mode)) {
      RETURN_IF_ERROR(CopyFile(from, to, name, info));
    } else if (S_ISLNK(info.st_mode)) {
      RETURN_IF_ERROR(CopyLink(from, to, name, info));
    } else if (!S_ISDIR(info.st_mode)) {
      RETURN_IF_ERROR(CopyNode(to, name, info));
    } else if (info.st_dev == device) {
      if (::mkdirat(to.get(), name.c_str(), 0700) != 0) {
        return sys::ErrnoError(errno, absl::StrCat("make the directory '", name, "'"));
      }
      ASSIGN_OR_RETURN(sys::UniqueFd inner_from,
                       sys::OpenAt(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
      ASSIGN_OR_RETURN(sys::UniqueFd inner_to,
                       sys::OpenAt(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
      RETURN_IF_ERROR(CopyBelow(inner_from, inner_to, device, depth + 1));
      RETURN_IF_ERROR(SetMeta(inner_to.get(), info));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CopyTree(const sys::UniqueFd& from, const sys::UniqueFd& to) {
  struct stat info = {};
  if (::fstat(from.get(), &info) != 0) return sys::ErrnoError(errno, "stat the directory to copy");
  RETURN_IF_ERROR(CopyBelow(from, to, info.st_dev, 0));
  return SetMeta(to.get(), info);
}

}  // namespace gantry::engine
