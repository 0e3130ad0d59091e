// Directory trees by descriptor, for trees that strangers filled.
#pragma once

#include <sys/stat.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/sys/unique_fd.h"

namespace gantry::archive {

// Opens `path` (relative; empty: `root` itself) with `root` as "/": symlinks, even absolute ones,
// stay inside. With `follow` false any symlink on the way is an error. Answers errno as a negative
// number.
int OpenInTree(int root, const std::string& path, int flags, bool follow);

// openat(2) for one name in a directory, without following it, as openat2(2): the unpack worker's
// filter refuses the older calls, with which libraries load configuration and code. -1 and errno on
// failure.
int OpenChildAt(int directory, const std::string& name, int flags, mode_t mode = 0);

// Removes `name` in the directory and all below it; symlinks are removed, not followed.
absl::Status RemoveAt(int directory, const std::string& name);

// Names in a directory, without "." and "..", sorted by bytes.
absl::StatusOr<std::vector<std::string>> ListAt(int directory, const std::string& name);

// Whether this is an overlay's whiteout: a character device 0:0.
bool IsWhiteoutDevice(const struct stat& status);

// Two path parts with '/' between them when both are there.
std::string JoinPath(const std::string& parent, const std::string& name);

// A path for messages: quoted, escaped, "/" for the root.
std::string Quoted(const std::string& path);

// A member's name as a path below a root: no leading '/', no empty or '.' parts. Empty: the root.
// Errors: InvalidArgument — a '..' part, or longer than PATH_MAX.
absl::StatusOr<std::string> CleanMemberPath(const std::string& raw);

}  // namespace gantry::archive
