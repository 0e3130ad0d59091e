#include "lib/sys/file.h"

#include <dirent.h>
#include <errno.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"

namespace gantry::sys {
namespace {

template <typename Call>
auto RetryOnEintr(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

absl::StatusOr<UniqueFd> OpenResolved(const UniqueFd& root, const std::string& path, int flags,
                                      mode_t mode, uint64_t resolve) {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? mode : 0;
  how.resolve = resolve | RESOLVE_NO_MAGICLINKS;
  // EAGAIN: the kernel saw a rename race while walking ".."; openat2(2) says to try again.
  long fd = -1;
  for (int attempt = 0; attempt < 32; ++attempt) {
    fd = RetryOnEintr(
        [&] { return ::syscall(SYS_openat2, root.get(), path.c_str(), &how, sizeof how); });
    if (fd >= 0 || errno != EAGAIN) break;
  }
  if (fd < 0) return ErrnoError(errno, absl::StrCat("open '", path, "' beneath its root"));
  return UniqueFd(static_cast<int>(fd));
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status Replace(const std::string& path, absl::string_view bytes, mode_t mode, bool durable) {
  const std::string temporary = absl::StrCat(path, ".tmp-", RandomHex(6));
  ASSIGN_OR_RETURN(UniqueFd file, Open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode));
  absl::Cleanup remove = [&] { ::unlink(temporary.c_str()); };
  RETURN_IF_ERROR(Annotate(WriteAll(file, bytes), absl::StrCat("write '", temporary, "'")));
  if (durable) RETURN_IF_ERROR(Sync(file));
  RETURN_IF_ERROR(Rename(temporary, path));
  std::move(remove).Cancel();
  return durable ? SyncDirectory(DirectoryOf(path)) : absl::OkStatus();
}

using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;

absl::StatusOr<Directory> OpenDirectory(UniqueFd fd, absl::string_view path) {
  Directory directory(::fdopendir(fd.get()), &::closedir);
  if (directory == nullptr) return ErrnoError(errno, absl::StrCat("read directory '", path, "'"));
  (void)fd.Release();
  return directory;
}

bool IsDots(const char* name) {
  return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

absl::Status RemoveEntries(UniqueFd fd, dev_t device, const std::string& path);

absl::Status RemoveEntry(int directory, const char* name, dev_t device, const std::string& path) {
  if (::unlinkat(directory, name, 0) == 0 || errno == ENOENT) return absl::OkStatus();
  if (errno != EISDIR && errno != EPERM) {
    return ErrnoError(errno, absl::StrCat("remove '", path, "'"));
  }
  UniqueFd child(RetryOnEintr(
      [&] { return ::openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); }));
  if (!child.ok()) {
    return errno == ENOENT ? absl::OkStatus()
                           : ErrnoError(errno, absl::StrCat("remove '", path, "'"));
  }
  RETURN_IF_ERROR(RemoveEntries(std::move(child), device, path));
  if (::unlinkat(directory, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("remove '", path, "'"));
}

absl::Status RemoveEntries(UniqueFd fd, dev_t device, const std::string& path) {
  struct stat info = {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoError(errno, absl::StrCat("stat '", path, "'"));
  if (info.st_dev != device) {
    return absl::FailedPreconditionError(absl::StrCat(
        "remove '", path, "': another file system is mounted there; unmount it first"));
  }
  ASSIGN_OR_RETURN(Directory directory, OpenDirectory(std::move(fd), path));
  errno = 0;
  while (const dirent* entry = ::readdir(directory.get())) {
    if (IsDots(entry->d_name)) continue;
    RETURN_IF_ERROR(RemoveEntry(::dirfd(directory.get()), entry->d_name, device,
                                absl::StrCat(path, "/", entry->d_name)));
    errno = 0;
  }
  return errno == 0 ? absl::OkStatus() : ErrnoError(errno, absl::StrCat("read '", path, "'"));
}

}  // namespace

absl::StatusOr<UniqueFd> Open(const std::string& path, int flags, mode_t mode) {
  UniqueFd fd(RetryOnEintr([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); }));
  if (!fd.ok()) return ErrnoError(errno, absl::StrCat("open '", path, "'"));
  return fd;
}

absl::StatusOr<UniqueFd> OpenAt(const UniqueFd& directory, const std::string& name, int flags,
                                mode_t mode) {
  UniqueFd fd(RetryOnEintr(
      [&] { return ::openat(directory.get(), name.c_str(), flags | O_CLOEXEC, mode); }));
  if (!fd.ok()) return ErrnoError(errno, absl::StrCat("open '", name, "'"));
  return fd;
}

absl::StatusOr<UniqueFd> OpenPath(const std::string& path) {
  return Open(path, O_PATH | O_DIRECTORY);
}

absl::StatusOr<UniqueFd> OpenBeneath(const UniqueFd& root, const std::string& path, int flags,
                                     mode_t mode) {
  return OpenResolved(root, path, flags, mode, RESOLVE_BENEATH);
}

absl::StatusOr<UniqueFd> OpenInRoot(const UniqueFd& root, const std::string& path, int flags,
                                    mode_t mode) {
  return OpenResolved(root, path, flags, mode, RESOLVE_IN_ROOT);
}

absl::StatusOr<std::string> ReadAll(const UniqueFd& file, size_t limit) {
  std::string bytes;
  size_t chunk = 4096;
  for (;;) {
    const size_t used = bytes.size();
    bytes.resize(used + chunk);
    const ssize_t count =
        RetryOnEintr([&] { return ::read(file.get(), bytes.data() + used, chunk); });
    if (count < 0) return ErrnoError(errno, "read");
    bytes.resize(used + static_cast<size_t>(count));
    if (count == 0) return bytes;
    if (bytes.size() > limit) {
      return absl::ResourceExhaustedError(
          absl::StrCat("read: more than the allowed ", limit, " bytes"));
    }
    chunk = std::min<size_t>(chunk * 2, 1 << 20);
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t limit) {
  ASSIGN_OR_RETURN(UniqueFd file, Open(path, O_RDONLY));
  return Annotate(ReadAll(file, limit), absl::StrCat("'", path, "'"));
}

absl::Status WriteAll(const UniqueFd& file, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count =
        RetryOnEintr([&] { return ::write(file.get(), bytes.data(), bytes.size()); });
    if (count < 0) return ErrnoError(errno, "write");
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

absl::Status WriteControlFile(const std::string& path, absl::string_view value) {
  ASSIGN_OR_RETURN(UniqueFd file, Open(path, O_WRONLY | O_NOFOLLOW));
  const ssize_t count =
      RetryOnEintr([&] { return ::write(file.get(), value.data(), value.size()); });
  if (count < 0) return ErrnoError(errno, absl::StrCat("write '", value, "' to '", path, "'"));
  return absl::OkStatus();
}

absl::Status WriteFileDurably(const std::string& path, absl::string_view bytes, mode_t mode) {
  return Replace(path, bytes, mode, /*durable=*/true);
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view bytes, mode_t mode) {
  return Replace(path, bytes, mode, /*durable=*/false);
}

absl::Status Sync(const UniqueFd& file) {
  if (::fsync(file.get()) != 0) return ErrnoError(errno, "fsync");
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  ASSIGN_OR_RETURN(UniqueFd directory, Open(path, O_RDONLY | O_DIRECTORY));
  return Annotate(Sync(directory), absl::StrCat("'", path, "'"));
}

absl::Status MakeDirectories(const std::string& path, mode_t mode) {
  if (path.empty()) return absl::InvalidArgumentError("make directory: empty path");
  size_t end = 0;
  while (end != std::string::npos) {
    end = path.find('/', end + 1);
    const std::string prefix = path.substr(0, end);
    if (prefix.empty() || prefix == "/") continue;
    if (::mkdir(prefix.c_str(), mode) == 0) {
      // The umask may have taken bits away.
      if (::chmod(prefix.c_str(), mode) != 0) {
        return ErrnoError(errno, absl::StrCat("chmod '", prefix, "'"));
      }
    } else if (errno != EEXIST) {
      return ErrnoError(errno, absl::StrCat("make directory '", prefix, "'"));
    }
  }
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) return ErrnoError(errno, absl::StrCat("stat '", path, "'"));
  if (!S_ISDIR(info.st_mode))
    return ErrnoError(ENOTDIR, absl::StrCat("make directory '", path, "'"));
  return absl::OkStatus();
}

absl::Status RemoveTree(const std::string& path) {
  struct stat info = {};
  if (::lstat(path.c_str(), &info) != 0) {
    return errno == ENOENT ? absl::OkStatus()
                           : ErrnoError(errno, absl::StrCat("remove '", path, "'"));
  }
  return RemoveEntry(AT_FDCWD, path.c_str(), info.st_dev, path);
}

absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) {
  ASSIGN_OR_RETURN(UniqueFd fd, Open(path, O_RDONLY | O_DIRECTORY));
  ASSIGN_OR_RETURN(Directory directory, OpenDirectory(std::move(fd), path));
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(directory.get())) {
    if (!IsDots(entry->d_name)) names.emplace_back(entry->d_name);
    errno = 0;
  }
  if (errno != 0) return ErrnoError(errno, absl::StrCat("read directory '", path, "'"));
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status MakeFifo(const std::string& path, mode_t mode) {
  if (::mkfifo(path.c_str(), mode) != 0 || ::chmod(path.c_str(), mode) != 0) {
    return ErrnoError(errno, absl::StrCat("make fifo '", path, "'"));
  }
  return absl::OkStatus();
}

absl::Status RemoveEmptyDirectory(const std::string& path) {
  if (::rmdir(path.c_str()) == 0) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("remove directory '", path, "'"));
}

absl::Status MakeSymlink(const std::string& target, const std::string& path) {
  if (::symlink(target.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("make symlink '", path, "'"));
}

absl::StatusOr<std::string> ReadSymlink(const std::string& path) {
  char target[4096];
  const ssize_t length = ::readlink(path.c_str(), target, sizeof target);
  if (length < 0) return ErrnoError(errno, absl::StrCat("read symlink '", path, "'"));
  if (static_cast<size_t>(length) == sizeof target) {
    return absl::ResourceExhaustedError(absl::StrCat("read symlink '", path, "': too long"));
  }
  return std::string(target, static_cast<size_t>(length));
}

bool Exists(const std::string& path) {
  struct stat info = {};
  return ::lstat(path.c_str(), &info) == 0;
}

absl::Status Unlink(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("remove '", path, "'"));
}

absl::Status Rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("rename '", from, "' to '", to, "'"));
}

}  // namespace gantry::sys
