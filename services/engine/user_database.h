// Users and groups as an image names them: /etc/passwd and /etc/group, read as data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/sys/unique_fd.h"

namespace gantry::engine {

struct ResolvedUser {
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::vector<uint32_t> groups;  // Supplementary, sorted.
  std::string home = "/";
  bool operator==(const ResolvedUser&) const = default;
};

// Texts of the two files; empty: the image has none. Both parsers skip lines that are not right.
struct UserDatabase {
  std::string passwd;
  std::string group;
};

// `user` is "", "name", "uid", "name:group", "uid:gid" …; digits are always a number, at most
// 4294967294 (SECURITY-RULES 19). Groups of `group_add` are added. A name that the files do not
// have is an error; a number they do not have stands for itself. Errors: InvalidArgument — not the
// grammar; NotFound "unable to find user X: no matching entries in passwd file".
absl::StatusOr<ResolvedUser> ResolveUser(absl::string_view user,
                                         const std::vector<std::string>& group_add,
                                         const UserDatabase& database);

// Reads both files below `root`, a container's root directory: regular files only, at most 1 MiB
// (SECURITY-RULES 15). A missing file is empty.
absl::StatusOr<UserDatabase> ReadUserDatabase(const sys::UniqueFd& root);

// The same from the layers of an overlay that is not mounted, the uppermost first. Whiteouts hide
// what is below. Symbolic links are followed only within the layer that holds them; what a layer
// cannot answer alone is Unavailable: mount it then.
absl::StatusOr<UserDatabase> ReadUserDatabaseFromLayers(const std::vector<std::string>& layers);

}  // namespace gantry::engine
