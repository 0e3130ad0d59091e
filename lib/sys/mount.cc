#include "lib/sys/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/mount_ways.h"

namespace gantry::sys {
namespace {

struct Word {
  const char* name;
  unsigned long set;
  unsigned long clear;
};

constexpr Word kWords[] = {
    {"async", 0, MS_SYNCHRONOUS},
    {"atime", 0, MS_NOATIME},
    {"bind", MS_BIND, 0},
    {"defaults", 0, 0},
    {"dev", 0, MS_NODEV},
    {"diratime", 0, MS_NODIRATIME},
    {"dirsync", MS_DIRSYNC, 0},
    {"exec", 0, MS_NOEXEC},
    {"lazytime", MS_LAZYTIME, 0},
    {"mand", MS_MANDLOCK, 0},
    {"noatime", MS_NOATIME, 0},
    {"nodev", MS_NODEV, 0},
    {"nodiratime", MS_NODIRATIME, 0},
    {"noexec", MS_NOEXEC, 0},
    {"nolazytime", 0, MS_LAZYTIME},
    {"nomand", 0, MS_MANDLOCK},
    {"norelatime", 0, MS_RELATIME},
    {"nostrictatime", 0, MS_STRICTATIME},
    {"nosuid", MS_NOSUID, 0},
    {"nosymfollow", MS_NOSYMFOLLOW, 0},
    {"rbind", MS_BIND | MS_REC, 0},
    {"relatime", MS_RELATIME, 0},
    {"remount", MS_REMOUNT, 0},
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"strictatime", MS_STRICTATIME, 0},
    {"suid", 0, MS_NOSUID},
    {"sync", MS_SYNCHRONOUS, 0},
};

constexpr Word kPropagation[] = {
    {"private", MS_PRIVATE, 0},       {"rprivate", MS_PRIVATE | MS_REC, 0},
    {"shared", MS_SHARED, 0},         {"rshared", MS_SHARED | MS_REC, 0},
    {"slave", MS_SLAVE, 0},           {"rslave", MS_SLAVE | MS_REC, 0},
    {"unbindable", MS_UNBINDABLE, 0}, {"runbindable", MS_UNBINDABLE | MS_REC, 0},
};

// Words for programs such as mount(8), systemd and containerd.
bool SpeaksToPrograms(absl::string_view option) {
  return option.empty() || option == "auto" || option == "noauto" || option == "user" ||
         option == "nouser" || option == "users" || option == "_netdev" || option == "nofail" ||
         absl::StartsWith(option, "x-") || absl::StartsWith(option, "X-");
}

// mount(2) copies one page of data at most, its last byte being the terminator.
constexpr size_t kMaxDataBytes = 4095;
// The directory part resolved, the last part kept: mountinfo holds resolved paths.
absl::StatusOr<std::string> ResolveDirectory(const std::string& path) {
  char resolved[PATH_MAX];
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  const size_t slash = trimmed.rfind('/');
  if (trimmed == "/") return trimmed;
  const std::string parent =
      slash == std::string::npos ? "." : (slash == 0 ? "/" : trimmed.substr(0, slash));
  const std::string name = slash == std::string::npos ? trimmed : trimmed.substr(slash + 1);
  if (name.empty() || name == "." || name == "..") {
    return absl::InvalidArgumentError(absl::StrCat("path '", path, "' does not end in a name"));
  }
  if (::realpath(parent.c_str(), resolved) == nullptr) {
    return ErrnoError(errno, absl::StrCat("resolve '", parent, "'"));
  }
  return absl::StrCat(resolved, absl::string_view(resolved) == "/" ? "" : "/", name);
}

}  // namespace

namespace mount_ways {

std::string Describe(const MountSpec& mount, const std::string& target) {
  return absl::StrCat("mount ", mount.type.empty() ? "bind" : mount.type, " '", mount.source,
                      "' on '", target, "'");
}

absl::Status MountOne(const MountSpec& mount, const std::string& target) {
  RETURN_IF_ERROR(FAILPOINT("sys.mount.before"));
  const MountOptions options = ParseMountOptions(mount.options);
  if (!options.uid_map.empty() || !options.gid_map.empty()) {
    return MountIdMapped(mount, options, target);
  }
  const std::string data = absl::StrJoin(options.data, ",");
  const bool bind = (options.flags & MS_BIND) != 0;
  // A bind ignores all flags but MS_REC; the others follow in a remount.
  const unsigned long first_flags = bind ? options.flags & (MS_BIND | MS_REC) : options.flags;
  if (!bind && mount.type == "overlay" && data.size() > kMaxDataBytes) {
    OverlayLayers layers = TakeLayers(options.data);
    if (layers.lower.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(Describe(mount, target), ": no lowerdir"));
    }
    if (!MountOverlayByLayer(layers, options.flags, mount.source, target)) {
      RETURN_IF_ERROR(MountOverlayRelative(std::move(layers), options, mount, target));
    }
  } else if (data.size() > kMaxDataBytes) {
    return absl::InvalidArgumentError(absl::StrCat(Describe(mount, target), ": options of ",
                                                   data.size(), " bytes; at most ", kMaxDataBytes));
  } else if (::mount(mount.source.c_str(), target.c_str(), mount.type.c_str(), first_flags,
                     data.empty() ? nullptr : data.c_str()) != 0) {
    return ErrnoError(errno, Describe(mount, target));
  }
  const unsigned long later = options.flags & ~static_cast<unsigned long>(MS_REC);
  if (bind && later != MS_BIND &&
      ::mount(nullptr, target.c_str(), nullptr, later | MS_REMOUNT, nullptr) != 0) {
    const absl::Status status = ErrnoError(errno, Describe(mount, target));
    ::umount2(target.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    return status;
  }
  if (options.propagation != 0 &&
      ::mount(nullptr, target.c_str(), nullptr, options.propagation, nullptr) != 0) {
    const absl::Status status = ErrnoError(errno, Describe(mount, target));
    ::umount2(target.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    return status;
  }
  return FAILPOINT("sys.mount.after");
}

}  // namespace mount_ways

MountOptions ParseMountOptions(const std::vector<std::string>& options) {
  MountOptions parsed;
  for (const std::string& option : options) {
    const auto named = [&](const Word& word) { return option == word.name; };
    if (const Word* word = std::find_if(std::begin(kWords), std::end(kWords), named);
        word != std::end(kWords)) {
      parsed.flags = (parsed.flags | word->set) & ~word->clear;
    } else if (const Word* propagation =
                   std::find_if(std::begin(kPropagation), std::end(kPropagation), named);
               propagation != std::end(kPropagation)) {
      parsed.propagation = propagation->set;
    } else if (absl::StartsWith(option, "uidmap=")) {
      parsed.uid_map = option.substr(7);
    } else if (absl::StartsWith(option, "gidmap=")) {
      parsed.gid_map = option.substr(7);
    } else if (!SpeaksToPrograms(option)) {
      parsed.data.push_back(option);
    }
  }
  return parsed;
}

absl::Status MountAll(const std::vector<MountSpec>& mounts, const std::string& directory) {
  for (size_t i = 0; i < mounts.size(); ++i) {
    std::string target = directory;
    absl::Status status;
    if (!mounts[i].target.empty()) {
      const std::vector<absl::string_view> parts = absl::StrSplit(mounts[i].target, '/');
      if (std::find(parts.begin(), parts.end(), "..") != parts.end()) {
        status = absl::InvalidArgumentError(
            absl::StrCat("mount target '", mounts[i].target, "' leaves its directory"));
      }
      absl::StrAppend(&target, "/", mounts[i].target);
    }
    if (status.ok()) status = mount_ways::MountOne(mounts[i], target);
    if (status.ok()) continue;
    // The first error is what the caller needs; what was mounted before it lies at or below.
    if (i > 0) (void)UnmountTree(directory);
    return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> MountPointsBelow(const std::string& path) {
  absl::StatusOr<std::string> resolved = ResolveDirectory(path);
  if (absl::IsNotFound(resolved.status())) return std::vector<std::string>();
  RETURN_IF_ERROR(resolved.status());
  const std::string prefix = *resolved == "/" ? "/" : absl::StrCat(*resolved, "/");
  ASSIGN_OR_RETURN(std::string table, ReadFile("/proc/self/mountinfo", 64 << 20));
  std::vector<std::string> points;
  for (absl::string_view line : absl::StrSplit(table, '\n', absl::SkipEmpty())) {
    // 36 35 98:0 /root /mount/point rw,noatime …
    for (int field = 0; field < 4; ++field) {
      const size_t space = line.find(' ');
      line.remove_prefix(space == absl::string_view::npos ? line.size() : space + 1);
    }
    std::string point = UnescapeMountinfo(line.substr(0, line.find(' ')));
    if (point == *resolved || absl::StartsWith(point, prefix)) points.push_back(std::move(point));
  }
  return points;
}

absl::Status UnmountTree(const std::string& path) {
  RETURN_IF_ERROR(FAILPOINT("sys.unmount.before"));
  // The everyday case, one mount without others below it, needs no look at the table.
  bool unmounted = false;
  while (::umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) unmounted = true;
  if (errno == ENOENT || (errno == EINVAL && unmounted)) return absl::OkStatus();
  if (errno != EBUSY && errno != EINVAL) {
    return ErrnoError(errno, absl::StrCat("unmount '", path, "'"));
  }
  ASSIGN_OR_RETURN(std::vector<std::string> points, MountPointsBelow(path));
  absl::Status first;
  for (auto point = points.rbegin(); point != points.rend(); ++point) {
    if (::umount2(point->c_str(), UMOUNT_NOFOLLOW) == 0) continue;
    if (errno == EBUSY && ::umount2(point->c_str(), UMOUNT_NOFOLLOW | MNT_DETACH) == 0) continue;
    // Detached together with its parent, or by somebody else, meanwhile.
    if (errno == EINVAL || errno == ENOENT) continue;
    first = FirstError(first, ErrnoError(errno, absl::StrCat("unmount '", *point, "'")));
  }
  return first;
}

std::string UnescapeMountinfo(absl::string_view field) {
  std::string text;
  text.reserve(field.size());
  for (size_t i = 0; i < field.size(); ++i) {
    const auto octal = [&](size_t at) { return field[at] >= '0' && field[at] <= '7'; };
    if (field[i] == '\\' && i + 3 < field.size() && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      text.push_back(static_cast<char>((field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 +
                                       (field[i + 3] - '0')));
      i += 3;
    } else {
      text.push_back(field[i]);
    }
  }
  return text;
}

}  // namespace gantry::sys
