#include <linux/magic.h>
#include <sys/statfs.h>

#include <algorithm>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/cgroup/cgroup.h"
#include "lib/sys/file.h"

namespace gantry::cgroup {
namespace {

constexpr char kRoot[] = "/sys/fs/cgroup";
constexpr long kV1Magic = 0x27e0eb;
constexpr long kV2Magic = 0x63677270;

bool IsMounted(const std::string& path, long magic) {
  struct statfs info = {};
  return ::statfs(path.c_str(), &info) == 0 && info.f_type == magic;
}

// Controllers in the order of the alphabet, since mounts and /proc/self/cgroup order them
// differently.
std::string Sorted(absl::string_view controllers) {
  std::vector<std::string> names = absl::StrSplit(controllers, ',');
  std::sort(names.begin(), names.end());
  return absl::StrJoin(names, ",");
}

// Mount points by sorted controllers ("" is v2), from the mount table: only read when a hierarchy
// is not where every distribution puts it, as machines with many mounts have long tables.
std::map<std::string, std::string> ReadMountTable() {
  std::map<std::string, std::string> points;
  absl::StatusOr<std::string> table = sys::ReadFile("/proc/self/mountinfo");
  if (!table.ok()) return points;
  for (absl::string_view line : absl::StrSplit(*table, '\n', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> halves =
        absl::StrSplit(line, absl::MaxSplits(" - ", 1));
    const std::vector<absl::string_view> left = absl::StrSplit(halves.first, ' ');
    const std::vector<absl::string_view> right = absl::StrSplit(halves.second, ' ');
    if (left.size() < 5 || right.size() < 3) continue;
    if (right[0] == "cgroup2") points.emplace("", left[4]);
    if (right[0] != "cgroup") continue;
    std::vector<std::string> controllers;
    for (absl::string_view option : absl::StrSplit(right[2], ',')) {
      if (option != "rw" && option != "ro" && option != "xattr" && option != "clone_children" &&
          option != "noprefix" && !absl::StartsWith(option, "release_agent=")) {
        controllers.emplace_back(option);
      }
    }
    points.emplace(Sorted(absl::StrJoin(controllers, ",")), left[4]);
  }
  return points;
}

}  // namespace

absl::StatusOr<Layout> Layout::Detect() {
  ASSIGN_OR_RETURN(std::string own, sys::ReadFile("/proc/self/cgroup"));
  Layout layout;
  if (IsMounted(kRoot, kV2Magic)) layout.mode = Mode::kV2;
  std::map<std::string, std::string> table;
  bool table_read = false;
  for (absl::string_view line : absl::StrSplit(own, '\n', absl::SkipEmpty())) {
    // "4:memory:/path", v2: "0::/path". A path may hold colons.
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    Hierarchy hierarchy{.controllers = std::string(fields[1]), .own_path = std::string(fields[2])};
    const bool unified = hierarchy.unified();
    if (layout.mode == Mode::kV2 && !unified) continue;
    hierarchy.mount_point =
        layout.mode == Mode::kV2 ? kRoot
        : unified                ? absl::StrCat(kRoot, "/unified")
                  : absl::StrCat(kRoot, "/", absl::StripPrefix(hierarchy.controllers, "name="));
    if (!IsMounted(hierarchy.mount_point, unified ? kV2Magic : kV1Magic)) {
      if (!table_read) table = ReadMountTable();
      table_read = true;
      auto found = table.find(unified ? "" : Sorted(hierarchy.controllers));
      if (found == table.end()) continue;  // Exists in the kernel, but is mounted nowhere.
      hierarchy.mount_point = found->second;
    }
    if (unified && layout.mode != Mode::kV2) layout.mode = Mode::kHybrid;
    layout.hierarchies.push_back(std::move(hierarchy));
  }
  if (layout.hierarchies.empty()) {
    return absl::NotFoundError("no cgroup hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup");
  }
  if (layout.hierarchies.size() == 1 && layout.hierarchies[0].unified()) layout.mode = Mode::kV2;
  return layout;
}

}  // namespace gantry::cgroup
