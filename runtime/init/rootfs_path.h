// Paths below a container's root. Each is resolved by the kernel from a descriptor of that root, in
// that root: a link in the image, or one swapped in meanwhile, leads nowhere else
// (SECURITY-RULES 8, 9).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "lib/sys/unique_fd.h"

namespace gantry::runtime {

// openat2(2) from `root` as "/"; -1 leaves the error in errno. `path` may begin with '/'.
// `resolve`: RESOLVE_… bits besides RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS.
int OpenIn(const sys::UniqueFd& root, const std::string& path, int flags, uint64_t resolve = 0);

// A directory below `root`, made level by level where it is missing. Symlinks lead within `root`;
// with `no_links` (for /proc, /sys, /dev themselves) one is an error.
absl::StatusOr<sys::UniqueFd> OpenOrMakeDirectory(const sys::UniqueFd& root,
                                                  const std::string& path, bool no_links = false,
                                                  mode_t mode = 0755);

// A file to mount a file on (O_PATH): what is there, else a new empty one.
absl::StatusOr<sys::UniqueFd> OpenOrMakeFile(const sys::UniqueFd& root, const std::string& path);

// "/a/b" into "/a" and "b"; the parent of "/b" is "/".
void SplitPath(const std::string& path, std::string* parent, std::string* name);

bool IsDirectory(const sys::UniqueFd& fd);
bool IsOnProc(const sys::UniqueFd& fd);

}  // namespace gantry::runtime
