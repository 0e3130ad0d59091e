#include "lib/sys/directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::sys {
namespace {

// Not in every <linux/fs.h>; the value is ext4's EXT4_TOPDIR_FL.
constexpr int kTopDirectoryFlag = 0x00020000;

using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;

class TreeMeter {
 public:
  explicit TreeMeter(dev_t device) : device_(device) {}

  void Count(const struct stat& info) {
    // Hard links: only the first name counts. Directories have several links by nature.
    if (!S_ISDIR(info.st_mode) && info.st_nlink > 1 && !linked_.insert(info.st_ino).second) return;
    usage_.bytes += static_cast<uint64_t>(info.st_blocks) * 512;
    ++usage_.inodes;
  }

  absl::Status Walk(UniqueFd fd, const std::string& path) {
    Directory directory(::fdopendir(fd.get()), &::closedir);
    if (directory == nullptr) return ErrnoError(errno, absl::StrCat("read directory '", path, "'"));
    (void)fd.Release();
    errno = 0;
    while (const dirent* entry = ::readdir(directory.get())) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") {
        RETURN_IF_ERROR(WalkEntry(::dirfd(directory.get()), name, absl::StrCat(path, "/", name)));
      }
      errno = 0;
    }
    if (errno != 0) return ErrnoError(errno, absl::StrCat("read directory '", path, "'"));
    return absl::OkStatus();
  }

  DiskUsage usage() const { return usage_; }

 private:
  absl::Status WalkEntry(int directory, const std::string& name, const std::string& path) {
    struct stat info = {};
    if (::fstatat(directory, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      return errno == ENOENT ? absl::OkStatus()
                             : ErrnoError(errno, absl::StrCat("stat '", path, "'"));
    }
    if (info.st_dev != device_) return absl::OkStatus();
    Count(info);
    if (!S_ISDIR(info.st_mode)) return absl::OkStatus();
    UniqueFd child(
        ::openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!child.ok()) {
      return errno == ENOENT ? absl::OkStatus()
                             : ErrnoError(errno, absl::StrCat("open '", path, "'"));
    }
    return Walk(std::move(child), path);
  }

  dev_t device_;
  DiskUsage usage_;
  std::set<ino_t> linked_;
};

}  // namespace

absl::Status MakeDirectory(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) != 0) {
    return ErrnoError(errno, absl::StrCat("make directory '", path, "'"));
  }
  if (::chmod(path.c_str(), mode) != 0) {
    return ErrnoError(errno, absl::StrCat("chmod '", path, "'"));
  }
  return absl::OkStatus();
}

absl::Status CopyOwnerAndMode(const std::string& model, const std::string& path) {
  struct stat info = {};
  if (::lstat(model.c_str(), &info) != 0) {
    return ErrnoError(errno, absl::StrCat("stat '", model, "'"));
  }
  ASSIGN_OR_RETURN(UniqueFd directory, Open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  // The owner first: chown takes set-id bits away.
  if (::fchown(directory.get(), info.st_uid, info.st_gid) != 0) {
    return ErrnoError(errno, absl::StrCat("chown '", path, "'"));
  }
  if (::fchmod(directory.get(), info.st_mode & 07777) != 0) {
    return ErrnoError(errno, absl::StrCat("chmod '", path, "'"));
  }
  return absl::OkStatus();
}

absl::Status ChangeDirectoryOwner(const std::string& path, uid_t uid, gid_t gid) {
  if (::lchown(path.c_str(), uid, gid) != 0) {
    return ErrnoError(errno, absl::StrCat("chown '", path, "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> SpreadSubdirectories(const std::string& path) {
  ASSIGN_OR_RETURN(UniqueFd directory, Open(path, O_RDONLY | O_DIRECTORY));
  int flags = 0;
  if (::ioctl(directory.get(), FS_IOC_GETFLAGS, &flags) != 0) {
    if (errno == ENOTTY || errno == EOPNOTSUPP || errno == ENOSYS) return false;
    return ErrnoError(errno, absl::StrCat("read the attributes of '", path, "'"));
  }
  if ((flags & kTopDirectoryFlag) != 0) return true;
  flags |= kTopDirectoryFlag;
  if (::ioctl(directory.get(), FS_IOC_SETFLAGS, &flags) != 0) {
    if (errno == ENOTTY || errno == EOPNOTSUPP || errno == EINVAL) return false;
    return ErrnoError(errno, absl::StrCat("set the attribute T of '", path, "'"));
  }
  return true;
}

absl::Status SyncFileSystem(const std::string& path) {
  ASSIGN_OR_RETURN(UniqueFd directory, Open(path, O_RDONLY | O_DIRECTORY));
  if (::syncfs(directory.get()) != 0) {
    return ErrnoError(errno, absl::StrCat("sync the file system of '", path, "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<DiskUsage> MeasureTree(const std::string& path) {
  ASSIGN_OR_RETURN(UniqueFd root, Open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  struct stat info = {};
  if (::fstat(root.get(), &info) != 0) return ErrnoError(errno, absl::StrCat("stat '", path, "'"));
  TreeMeter meter(info.st_dev);
  meter.Count(info);
  RETURN_IF_ERROR(meter.Walk(std::move(root), path));
  return meter.usage();
}

}  // namespace gantry::sys
