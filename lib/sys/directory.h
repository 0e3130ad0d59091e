// Directories as places that own what is below them: made with exact owners, counted, made durable.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/sys/unique_fd.h"

namespace gantry::sys {

// mkdir(2) for one new directory with exactly `mode`, whatever the umask says.
// Errors: AlreadyExists; NotFound — no parent.
absl::Status MakeDirectory(const std::string& path, mode_t mode);

// Gives the directory `path` the owner and permissions of the directory `model`. Neither may be a
// symlink.
absl::Status CopyOwnerAndMode(const std::string& model, const std::string& path);

// chown(2) of a directory, not through a symlink.
absl::Status ChangeDirectoryOwner(const std::string& path, uid_t uid, gid_t gid);

// chattr +T: tells ext4 to spread the subdirectories of `path` over the disk, which keeps creating
// files fast soon after many were deleted. False where the file system knows no such thing.
absl::StatusOr<bool> SpreadSubdirectories(const std::string& path);

// syncfs(2): all of the file system that holds `path` is on the disk, or an error says it may not
// be.
absl::Status SyncFileSystem(const std::string& path);

// What a tree takes on the disk: blocks, not lengths; a file with several names counts once.
struct DiskUsage {
  uint64_t bytes = 0;
  uint64_t inodes = 0;
};

// Walks `path` and all below it on the same file system, following no symlink. What vanishes under
// way is not counted. Errors: NotFound — no such directory.
absl::StatusOr<DiskUsage> MeasureTree(const std::string& path);

}  // namespace gantry::sys
