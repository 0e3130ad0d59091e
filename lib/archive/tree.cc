#include "lib/archive/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"

namespace gantry::archive {
namespace {

constexpr size_t kMaxPathBytes = 4095;
constexpr int kMaxDepth = 2048;  // PATH_MAX allows no deeper tree to be made by path.

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

absl::StatusOr<std::unique_ptr<DIR, CloseDirectory>> OpenDirectory(int parent,
                                                                   const std::string& name) {
  const int fd = OpenChildAt(parent, name, O_RDONLY | O_DIRECTORY);
  if (fd < 0) {
    return sys::ErrnoError(errno, absl::StrCat("open directory '", EscapeForTerminal(name), "'"));
  }
  DIR* directory = ::fdopendir(fd);
  if (directory == nullptr) {
    ::close(fd);
    return sys::ErrnoError(errno, absl::StrCat("read directory '", EscapeForTerminal(name), "'"));
  }
  return std::unique_ptr<DIR, CloseDirectory>(directory);
}

bool IsDots(const char* name) { return ::strcmp(name, ".") == 0 || ::strcmp(name, "..") == 0; }

absl::Status RemoveAtDepth(int parent, const std::string& name, int depth) {
  if (::unlinkat(parent, name.c_str(), 0) == 0 || errno == ENOENT) return absl::OkStatus();
  if (errno != EISDIR && errno != EPERM) {
    return sys::ErrnoError(errno, absl::StrCat("remove '", EscapeForTerminal(name), "'"));
  }
  if (depth > kMaxDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat("remove '", EscapeForTerminal(name), "': nested too deeply"));
  }
  ASSIGN_OR_RETURN(auto directory, OpenDirectory(parent, name));
  while (const dirent* entry = ::readdir(directory.get())) {
    if (IsDots(entry->d_name)) continue;
    RETURN_IF_ERROR(RemoveAtDepth(::dirfd(directory.get()), entry->d_name, depth + 1));
  }
  if (::unlinkat(parent, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
    return sys::ErrnoError(errno, absl::StrCat("remove directory '", EscapeForTerminal(name), "'"));
  }
  return absl::OkStatus();
}

}  // namespace

int OpenInTree(int root, const std::string& path, int flags, bool follow) {
  struct open_how how = {};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  if (!follow) how.resolve |= RESOLVE_NO_SYMLINKS;
  for (;;) {
    const int fd = static_cast<int>(
        ::syscall(SYS_openat2, root, path.empty() ? "." : path.c_str(), &how, sizeof(how)));
    if (fd >= 0) return fd;
    // A rename anywhere on the host during the walk makes openat2 ask for another try.
    if (errno != EINTR && errno != EAGAIN) return -errno;
  }
}

int OpenChildAt(int directory, const std::string& name, int flags, mode_t mode) {
  struct open_how how = {};
  how.flags = static_cast<uint64_t>(flags | O_NOFOLLOW | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  for (;;) {
    const int fd =
        static_cast<int>(::syscall(SYS_openat2, directory, name.c_str(), &how, sizeof(how)));
    if (fd >= 0 || (errno != EINTR && errno != EAGAIN)) return fd;
  }
}

absl::Status RemoveAt(int directory, const std::string& name) {
  return RemoveAtDepth(directory, name, 0);
}

absl::StatusOr<std::vector<std::string>> ListAt(int parent, const std::string& name) {
  ASSIGN_OR_RETURN(auto directory, OpenDirectory(parent, name));
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(directory.get())) {
    if (!IsDots(entry->d_name)) names.emplace_back(entry->d_name);
  }
  if (errno != 0) {
    return sys::ErrnoError(errno, absl::StrCat("list '", EscapeForTerminal(name), "'"));
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool IsWhiteoutDevice(const struct stat& status) {
  return S_ISCHR(status.st_mode) && status.st_rdev == ::makedev(0, 0);
}

std::string Quoted(const std::string& path) {
  return absl::StrCat("'", EscapeForTerminal(path.empty() ? "/" : path), "'");
}

std::string JoinPath(const std::string& parent, const std::string& name) {
  if (parent.empty()) return name;
  if (name.empty()) return parent;
  return absl::StrCat(parent, "/", name);
}

absl::StatusOr<std::string> CleanMemberPath(const std::string& raw) {
  if (raw.size() > kMaxPathBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a name of ", raw.size(), " bytes is longer than ", kMaxPathBytes));
  }
  std::string clean;
  clean.reserve(raw.size());
  for (absl::string_view part : absl::StrSplit(raw, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      return absl::InvalidArgumentError(
          absl::StrCat("the name '", EscapeForTerminal(raw), "' has a part '..'"));
    }
    if (!clean.empty()) clean += '/';
    clean.append(part.data(), part.size());
  }
  return clean;
}

}  // namespace gantry::archive
