#include "services/engine/user_database.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::engine {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr uint32_t kMaxId = 4294967294U;

bool IsNumber(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
}

absl::StatusOr<uint32_t> ParseId(absl::string_view text) {
  uint32_t id = 0;
  if (!absl::SimpleAtoi(text, &id) || id > kMaxId) {
    return absl::InvalidArgumentError(
        absl::StrCat("invalid user or group id '", text, "': ids are 0 to 4294967294"));
  }
  return id;
}

absl::Status CheckUserName(absl::string_view name) {
  bool right = !name.empty() && name.size() <= 256;
  for (char c : name) {
    right &= absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' ||
             c == '-' || c == '$';
  }
  if (right && name[0] != '-') return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("invalid user or group name '", name, "'"));
}

struct PasswdEntry {
  std::string name;
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::string home;
};

template <typename Match>
std::optional<PasswdEntry> FindPasswd(absl::string_view text, Match match) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ':');
    if (fields.size() < 6) continue;
    absl::StatusOr<uint32_t> uid = ParseId(fields[2]);
    absl::StatusOr<uint32_t> gid = ParseId(fields[3]);
    if (!uid.ok() || !gid.ok()) continue;
    PasswdEntry entry{std::string(fields[0]), *uid, *gid, std::string(fields[5])};
    if (match(entry)) return entry;
  }
  return std::nullopt;
}

std::optional<uint32_t> FindGroup(absl::string_view text, absl::string_view name) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ':');
    if (fields.size() < 3 || fields[0] != name) continue;
    if (absl::StatusOr<uint32_t> gid = ParseId(fields[2]); gid.ok()) return *gid;
  }
  return std::nullopt;
}

absl::StatusOr<uint32_t> ResolveGroup(absl::string_view group, const UserDatabase& database) {
  if (IsNumber(group)) return ParseId(group);
  RETURN_IF_ERROR(CheckUserName(group));
  if (std::optional<uint32_t> gid = FindGroup(database.group, group)) return *gid;
  return absl::NotFoundError(
      absl::StrCat("unable to find group ", group, ": no matching entries in group file"));
}

void AddGroupsOf(absl::string_view user_name, absl::string_view text, std::set<uint32_t>& groups) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ':');
    if (fields.size() < 4) continue;
    absl::StatusOr<uint32_t> gid = ParseId(fields[2]);
    if (!gid.ok()) continue;
    for (absl::string_view member : absl::StrSplit(fields[3], ',')) {
      if (absl::StripAsciiWhitespace(member) == user_name) groups.insert(*gid);
    }
  }
}

// What one layer says about a path.
enum class Found { kNothing, kFile, kHidden };

absl::StatusOr<Found> ReadFrom(const sys::UniqueFd& root, const std::string& path,
                               std::string* text) {
  // O_NONBLOCK: a fifo in an image must not hold us up.
  absl::StatusOr<sys::UniqueFd> file =
      sys::OpenInRoot(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (absl::IsNotFound(file.status())) return Found::kNothing;
  RETURN_IF_ERROR(file.status());
  struct stat info = {};
  if (::fstat(file->get(), &info) != 0) return sys::ErrnoError(errno, absl::StrCat("stat ", path));
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("'", path, "' of the container is not a regular file"));
  }
  ASSIGN_OR_RETURN(*text, sys::ReadAll(*file, kMaxFileBytes));
  return Found::kFile;
}

// Whether a layer has something at this very name, without following a link at its end.
absl::StatusOr<Found> LookInLayer(const sys::UniqueFd& layer, const std::string& path,
                                  mode_t* mode) {
  absl::StatusOr<sys::UniqueFd> file = sys::OpenInRoot(layer, path, O_PATH | O_NOFOLLOW);
  if (absl::IsNotFound(file.status())) return Found::kNothing;
  RETURN_IF_ERROR(file.status());
  struct stat info = {};
  if (::fstat(file->get(), &info) != 0) return sys::ErrnoError(errno, absl::StrCat("stat ", path));
  *mode = info.st_mode;
  return S_ISCHR(info.st_mode) && info.st_rdev == 0 ? Found::kHidden : Found::kFile;
}

// Whether a directory of a layer hides the same directory of the layers below.
bool IsOpaque(const sys::UniqueFd& layer, const std::string& path) {
  absl::StatusOr<sys::UniqueFd> directory =
      sys::OpenInRoot(layer, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  char value[8];
  if (!directory.ok()) return false;
  for (const char* name : {"trusted.overlay.opaque", "user.overlay.opaque"}) {
    if (::fgetxattr(directory->get(), name, value, sizeof value) > 0 && value[0] == 'y')
      return true;
  }
  return false;
}

absl::StatusOr<std::string> ReadThroughLayers(const std::vector<sys::UniqueFd>& layers,
                                              const std::string& name) {
  for (const sys::UniqueFd& layer : layers) {
    mode_t mode = 0;
    ASSIGN_OR_RETURN(Found etc, LookInLayer(layer, "etc", &mode));
    if (etc == Found::kNothing) continue;
    if (etc == Found::kHidden) return std::string();
    if (!S_ISDIR(mode)) return absl::UnavailableError("/etc is a link");
    ASSIGN_OR_RETURN(Found file, LookInLayer(layer, name, &mode));
    if (file == Found::kHidden) return std::string();
    if (file == Found::kNothing) {
      if (IsOpaque(layer, "etc")) return std::string();
      continue;
    }
    if (!S_ISREG(mode)) return absl::UnavailableError(absl::StrCat("/", name, " is not a file"));
    std::string text;
    RETURN_IF_ERROR(ReadFrom(layer, name, &text).status());
    return text;
  }
  return std::string();
}

}  // namespace

absl::StatusOr<ResolvedUser> ResolveUser(absl::string_view user,
                                         const std::vector<std::string>& group_add,
                                         const UserDatabase& database) {
  const size_t colon = user.find(':');
  absl::string_view name = user.substr(0, colon);
  const absl::string_view group =
      colon == absl::string_view::npos ? absl::string_view() : user.substr(colon + 1);
  if (colon != absl::string_view::npos && group.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("invalid user '", user, "': no group after ':'"));
  }
  if (name.empty()) name = "0";

  ResolvedUser resolved;
  std::optional<PasswdEntry> entry;
  if (IsNumber(name)) {
    ASSIGN_OR_RETURN(resolved.uid, ParseId(name));
    entry = FindPasswd(database.passwd,
                       [&](const PasswdEntry& have) { return have.uid == resolved.uid; });
  } else {
    RETURN_IF_ERROR(CheckUserName(name));
    entry = FindPasswd(database.passwd, [&](const PasswdEntry& have) { return have.name == name; });
    if (!entry.has_value()) {
      if (name != "root") {
        return absl::NotFoundError(
            absl::StrCat("unable to find user ", name, ": no matching entries in passwd file"));
      }
      entry = PasswdEntry{"root", 0, 0, "/root"};  // An image without files still has a root.
    }
    resolved.uid = entry->uid;
  }
  std::set<uint32_t> groups;
  if (entry.has_value()) {
    resolved.gid = entry->gid;
    if (!entry->home.empty() && entry->home[0] == '/') resolved.home = entry->home;
  }
  if (!group.empty()) {
    ASSIGN_OR_RETURN(resolved.gid, ResolveGroup(group, database));
  } else if (entry.has_value()) {
    AddGroupsOf(entry->name, database.group, groups);
  }
  for (const std::string& more : group_add) {
    ASSIGN_OR_RETURN(uint32_t gid, ResolveGroup(more, database));
    groups.insert(gid);
  }
  resolved.groups.assign(groups.begin(), groups.end());
  return resolved;
}

absl::StatusOr<UserDatabase> ReadUserDatabase(const sys::UniqueFd& root) {
  UserDatabase database;
  RETURN_IF_ERROR(ReadFrom(root, "etc/passwd", &database.passwd).status());
  RETURN_IF_ERROR(ReadFrom(root, "etc/group", &database.group).status());
  return database;
}

absl::StatusOr<UserDatabase> ReadUserDatabaseFromLayers(const std::vector<std::string>& layers) {
  std::vector<sys::UniqueFd> roots;
  for (const std::string& layer : layers) {
    ASSIGN_OR_RETURN(sys::UniqueFd root, sys::OpenPath(layer));
    roots.push_back(std::move(root));
  }
  UserDatabase database;
  ASSIGN_OR_RETURN(database.passwd, ReadThroughLayers(roots, "etc/passwd"));
  ASSIGN_OR_RETURN(database.group, ReadThroughLayers(roots, "etc/group"));
  return database;
}

}  // namespace gantry::engine
