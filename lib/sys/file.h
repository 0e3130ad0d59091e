// Files and directories by descriptor. Nothing here follows a path twice.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/sys/unique_fd.h"

namespace gantry::sys {

inline constexpr size_t kDefaultReadLimitBytes = 16 << 20;

// open(2) with O_CLOEXEC.
absl::StatusOr<UniqueFd> Open(const std::string& path, int flags, mode_t mode = 0);
absl::StatusOr<UniqueFd> OpenAt(const UniqueFd& directory, const std::string& name, int flags,
                                mode_t mode = 0);

// A directory as O_PATH, to resolve other paths from.
absl::StatusOr<UniqueFd> OpenPath(const std::string& path);

// openat2(2) with RESOLVE_BENEATH and no magic links: `path` may not leave `root`, not even for a
// moment. Errors: PermissionDenied — it tried to.
absl::StatusOr<UniqueFd> OpenBeneath(const UniqueFd& root, const std::string& path, int flags,
                                     mode_t mode = 0);

// openat2(2) with RESOLVE_IN_ROOT and no magic links: `root` is "/" for `path`, as inside a
// container.
absl::StatusOr<UniqueFd> OpenInRoot(const UniqueFd& root, const std::string& path, int flags,
                                    mode_t mode = 0);

// Everything from the current offset to the end. Errors: ResourceExhausted — more than `limit`
// bytes.
absl::StatusOr<std::string> ReadAll(const UniqueFd& file, size_t limit = kDefaultReadLimitBytes);
absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     size_t limit = kDefaultReadLimitBytes);

// All of `bytes`, at the current offset; short writes are continued.
absl::Status WriteAll(const UniqueFd& file, absl::string_view bytes);

// Opens `path` for writing as it is (no create, no truncate) and writes `value` in one write(2):
// what files under /proc, /sys and cgroups want.
absl::Status WriteControlFile(const std::string& path, absl::string_view value);

// Temporary file beside `path`, fsync, rename, fsync of the directory: after OK the new content
// survives power loss, after an error the old one is still there.
absl::Status WriteFileDurably(const std::string& path, absl::string_view bytes, mode_t mode = 0600);

// As above without the two fsyncs, for state under /run that a reboot ends anyway.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view bytes,
                                 mode_t mode = 0600);

absl::Status Sync(const UniqueFd& file);
absl::Status SyncDirectory(const std::string& path);

// mkdir -p; directories made get exactly `mode`, existing ones keep theirs.
absl::Status MakeDirectories(const std::string& path, mode_t mode = 0700);

// Removes `path` and all below it without following symlinks or crossing into another file system;
// fine when it is not there. Errors: FailedPrecondition — something is mounted below it.
absl::Status RemoveTree(const std::string& path);

// Names in a directory, without "." and "..", sorted.
absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path);

// mkfifo(3), with exactly `mode`. Errors: AlreadyExists.
absl::Status MakeFifo(const std::string& path, mode_t mode);

// rmdir(2). Errors: FailedPrecondition — not empty, or something is mounted there; NotFound.
absl::Status RemoveEmptyDirectory(const std::string& path);

// symlink(2). Errors: AlreadyExists.
absl::Status MakeSymlink(const std::string& target, const std::string& path);

// readlink(2). Errors: NotFound; InvalidArgument — not a symlink.
absl::StatusOr<std::string> ReadSymlink(const std::string& path);

bool Exists(const std::string& path);
absl::Status Unlink(const std::string& path);  // Fine when it is not there.
absl::Status Rename(const std::string& from, const std::string& to);

}  // namespace gantry::sys
