#include "lib/archive/diff.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/archive/tree.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/unique_fd.h"

namespace gantry::archive {
namespace {

constexpr size_t kCopyBytes = 256 << 10;
constexpr char kOpaqueXattr[] = "trusted.overlay.opaque";

absl::Status Errno(const char* attempt, const std::string& path) {
  return sys::ErrnoError(errno, absl::StrCat(attempt, " '", EscapeForTerminal(path), "'"));
}

absl::Time ModifiedTime(const struct stat& status) {
  return absl::TimeFromTimespec(status.st_mtim);
}

sys::UniqueFd OpenChild(int directory, const std::string& name, int flags) {
  return sys::UniqueFd(OpenChildAt(directory, name, flags));
}

// Reads one extended attribute; empty optional when there is none.
std::optional<std::string> GetXattr(int fd, const char* name) {
  std::string value(256, '\0');
  for (;;) {
    const ssize_t size = ::fgetxattr(fd, name, &value[0], value.size());
    if (size >= 0) {
      value.resize(static_cast<size_t>(size));
      return value;
    }
    if (errno != ERANGE || value.size() >= (64 << 10)) return std::nullopt;
    value.resize(value.size() * 4);
  }
}

// The attributes a layer carries, sorted: the counterpart of what LayerSink keeps.
std::vector<std::pair<std::string, std::string>> LayerXattrs(int fd) {
  std::string names(4096, '\0');
  ssize_t size = ::flistxattr(fd, &names[0], names.size());
  if (size < 0 && errno == ERANGE) {
    names.resize(64 << 10);
    size = ::flistxattr(fd, &names[0], names.size());
  }
  std::vector<std::pair<std::string, std::string>> xattrs;
  if (size <= 0) return xattrs;
  names.resize(static_cast<size_t>(size));
  for (absl::string_view name : absl::StrSplit(names, '\0', absl::SkipEmpty())) {
    const bool kept = name == "security.capability" ||
                      (absl::StartsWith(name, "user.") && !absl::StartsWith(name, "user.overlay."));
    if (!kept) continue;
    const std::string key(name);
    if (std::optional<std::string> value = GetXattr(fd, key.c_str())) {
      xattrs.emplace_back(key, *value);
    }
  }
  std::sort(xattrs.begin(), xattrs.end());
  return xattrs;
}

absl::StatusOr<std::string> ReadLink(int directory, const std::string& name) {
  std::string target(4096, '\0');
  const ssize_t size = ::readlinkat(directory, name.c_str(), &target[0], target.size());
  if (size < 0) return Errno("read the link", name);
  target.resize(static_cast<size_t>(size));
  return target;
}

absl::StatusOr<bool> SameContents(int lower, int upper, const std::string& name) {
  sys::UniqueFd a = OpenChild(lower, name, O_RDONLY | O_NONBLOCK);
  sys::UniqueFd b = OpenChild(upper, name, O_RDONLY | O_NONBLOCK);
  if (!a.ok() || !b.ok()) return false;
  auto first = std::make_unique<char[]>(kCopyBytes);
  auto second = std::make_unique<char[]>(kCopyBytes);
  for (off_t offset = 0;;) {
    const ssize_t n = ::pread(a.get(), first.get(), kCopyBytes, offset);
    const ssize_t m = ::pread(b.get(), second.get(), kCopyBytes, offset);
    if (n < 0 || m < 0) return Errno("read", name);
    if (n != m || std::memcmp(first.get(), second.get(), static_cast<size_t>(n)) != 0) return false;
    if (n == 0) return true;
    offset += n;
  }
}

class Differ {
 public:
  Differ(const DiffOptions& options, TarWriter& writer) : options_(options), writer_(writer) {}

  absl::Status Walk(int lower, int upper, const std::string& path) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, ListAt(upper, "."));
    if (lower >= 0) RETURN_IF_ERROR(WriteMissing(lower, names, path));
    for (const std::string& name : names) RETURN_IF_ERROR(Visit(lower, upper, path, name));
    return absl::OkStatus();
  }

 private:
  struct Pending {
    std::string path;
    struct stat status;
    int fd;
  };

  // Whiteouts for the names below that are no longer above.
  absl::Status WriteMissing(int lower, const std::vector<std::string>& present,
                            const std::string& path) {
    ASSIGN_OR_RETURN(const std::vector<std::string> before, ListAt(lower, "."));
    for (const std::string& name : before) {
      if (std::binary_search(present.begin(), present.end(), name)) continue;
      RETURN_IF_ERROR(WriteWhiteout(path, absl::StrCat(".wh.", name)));
    }
    return absl::OkStatus();
  }

  absl::Status WriteWhiteout(const std::string& directory, const std::string& name) {
    RETURN_IF_ERROR(WritePending());
    TarEntry entry;
    entry.path = JoinPath(directory, name);
    entry.modified = absl::UnixEpoch();
    return writer_.Add(entry);
  }

  absl::Status Visit(int lower, int upper, const std::string& directory, const std::string& name) {
    struct stat now = {};
    if (::fstatat(upper, name.c_str(), &now, AT_SYMLINK_NOFOLLOW) != 0) {
      return errno == ENOENT ? absl::OkStatus() : Errno("look at", JoinPath(directory, name));
    }
    const std::string path = JoinPath(directory, name);
    if (options_.overlay_upper && IsWhiteoutDevice(now)) {
      return WriteWhiteout(directory, absl::StrCat(".wh.", name));
    }
    if (S_ISSOCK(now.st_mode)) return absl::OkStatus();  // Tar has no sockets.
    struct stat before = {};
    const bool existed =
        lower >= 0 && ::fstatat(lower, name.c_str(), &before, AT_SYMLINK_NOFOLLOW) == 0;
    bool same = false;
    if (existed) {
      ASSIGN_OR_RETURN(same, Same(lower, before, upper, now, name));
    }
    if (!S_ISDIR(now.st_mode)) {
      return same ? absl::OkStatus() : WriteEntry(upper, name, path, now);
    }
    return VisitDirectory(existed && S_ISDIR(before.st_mode) ? lower : -1, upper, name, path, now,
                          same);
  }

  absl::Status VisitDirectory(int lower, int upper, const std::string& name,
                              const std::string& path, const struct stat& now, bool same) {
    sys::UniqueFd above = OpenChild(upper, name, O_RDONLY | O_DIRECTORY);
    if (!above.ok()) return Errno("open", path);
    sys::UniqueFd below;
    if (lower >= 0) below = OpenChild(lower, name, O_RDONLY | O_DIRECTORY);
    pending_.push_back({path, now, above.get()});
    if (!same) RETURN_IF_ERROR(WritePending());
    if (options_.overlay_upper) {
      std::optional<std::string> opaque = GetXattr(above.get(), kOpaqueXattr);
      if (opaque && *opaque == "y") RETURN_IF_ERROR(WriteWhiteout(path, ".wh..wh..opq"));
    }
    RETURN_IF_ERROR(Walk(below.get(), above.get(), path));
    if (!pending_.empty()) pending_.pop_back();
    return absl::OkStatus();
  }

  // A directory is written when it changed or something below it did: before that something.
  absl::Status WritePending() {
    std::vector<Pending> pending = std::move(pending_);
    pending_.clear();
    for (const Pending& directory : pending) {
      TarEntry entry = EntryFor(directory.path, directory.status);
      entry.type = EntryType::kDirectory;
      entry.xattrs = LayerXattrs(directory.fd);
      RETURN_IF_ERROR(writer_.Add(entry));
    }
    return absl::OkStatus();
  }

  TarEntry EntryFor(const std::string& path, const struct stat& status) const {
    TarEntry entry;
    entry.path = path;
    entry.permissions = status.st_mode & 07777;
    entry.uid = status.st_uid;
    entry.gid = status.st_gid;
    entry.modified = ModifiedTime(status);
    if (options_.latest_time && entry.modified > *options_.latest_time) {
      entry.modified = *options_.latest_time;
    }
    return entry;
  }

  absl::Status WriteEntry(int directory, const std::string& name, const std::string& path,
                          const struct stat& status) {
    RETURN_IF_ERROR(WritePending());
    TarEntry entry = EntryFor(path, status);
    if (status.st_nlink > 1) {
      auto [first, inserted] = links_.try_emplace({status.st_dev, status.st_ino}, path);
      if (!inserted) {
        entry.type = EntryType::kHardLink;
        entry.link_target = first->second;
        return writer_.Add(entry);
      }
    }
    switch (status.st_mode & S_IFMT) {
      case S_IFREG:
        return WriteFile(directory, name, path, status, std::move(entry));
      case S_IFLNK: {
        entry.type = EntryType::kSymlink;
        ASSIGN_OR_RETURN(entry.link_target, ReadLink(directory, name));
        return writer_.Add(entry);
      }
      case S_IFIFO:
        entry.type = EntryType::kFifo;
        return writer_.Add(entry);
      default:
        entry.type =
            S_ISCHR(status.st_mode) ? EntryType::kCharacterDevice : EntryType::kBlockDevice;
        entry.device_major = major(status.st_rdev);
        entry.device_minor = minor(status.st_rdev);
        return writer_.Add(entry);
    }
  }

  absl::Status WriteFile(int directory, const std::string& name, const std::string& path,
                         const struct stat& status, TarEntry entry) {
    sys::UniqueFd file = OpenChild(directory, name, O_RDONLY | O_NONBLOCK);
    struct stat opened = {};
    if (!file.ok() || ::fstat(file.get(), &opened) != 0) return Errno("open", path);
    if (!S_ISREG(opened.st_mode)) {
      return absl::AbortedError(absl::StrCat("'", EscapeForTerminal(path),
                                             "' was replaced while it was read; try again"));
    }
    entry.size_bytes = static_cast<uint64_t>(status.st_size);
    entry.xattrs = LayerXattrs(file.get());
    RETURN_IF_ERROR(writer_.Add(entry));
    auto buffer = std::make_unique<char[]>(kCopyBytes);
    uint64_t left = entry.size_bytes;
    while (left > 0) {
      const size_t want = static_cast<size_t>(std::min<uint64_t>(left, kCopyBytes));
      ssize_t bytes = ::read(file.get(), buffer.get(), want);
      if (bytes < 0 && errno == EINTR) continue;
      if (bytes < 0) return Errno("read", path);
      if (bytes == 0) {  // It shrank: the header has been written, so zeros stand in.
        std::memset(buffer.get(), 0, want);
        bytes = static_cast<ssize_t>(want);
      }
      RETURN_IF_ERROR(
          writer_.WriteData(absl::string_view(buffer.get(), static_cast<size_t>(bytes))));
      left -= static_cast<uint64_t>(bytes);
    }
    return absl::OkStatus();
  }

  // Whether an entry is as it was. Directories are compared without their contents.
  absl::StatusOr<bool> Same(int lower, const struct stat& before, int upper, const struct stat& now,
                            const std::string& name) {
    // An overlay shows an untouched file by its own inode on the lower side's device or by another
    // device number altogether, so equal numbers prove sameness and different ones prove nothing.
    if (before.st_dev == now.st_dev && before.st_ino == now.st_ino && !S_ISDIR(now.st_mode)) {
      return true;
    }
    if (before.st_mode != now.st_mode || before.st_uid != now.st_uid ||
        before.st_gid != now.st_gid || before.st_rdev != now.st_rdev) {
      return false;
    }
    if (S_ISLNK(now.st_mode)) {
      ASSIGN_OR_RETURN(const std::string old_target, ReadLink(lower, name));
      ASSIGN_OR_RETURN(const std::string new_target, ReadLink(upper, name));
      return old_target == new_target;
    }
    if (S_ISREG(now.st_mode) || S_ISDIR(now.st_mode)) {
      sys::UniqueFd a = OpenChild(lower, name, O_RDONLY | O_NONBLOCK);
      sys::UniqueFd b = OpenChild(upper, name, O_RDONLY | O_NONBLOCK);
      if (a.ok() && b.ok() && LayerXattrs(a.get()) != LayerXattrs(b.get())) return false;
    }
    if (!S_ISREG(now.st_mode)) return true;
    if (before.st_size != now.st_size || ModifiedTime(before) != ModifiedTime(now)) return false;
    // Times without a fraction come from archives, where two builds may share one: look inside.
    if (now.st_mtim.tv_nsec != 0) return true;
    return SameContents(lower, upper, name);
  }

  const DiffOptions& options_;
  TarWriter& writer_;
  std::vector<Pending> pending_;  // Directories on the way here that are not written yet.
  std::map<std::pair<dev_t, ino_t>, std::string> links_;
};

}  // namespace

absl::Status WriteDiff(int lower, int upper, const DiffOptions& options, TarWriter& writer) {
  Differ differ(options, writer);
  RETURN_IF_ERROR(differ.Walk(options.overlay_upper ? -1 : lower, upper, ""));
  return writer.Finish();
}

}  // namespace gantry::archive
