#include "runtime/init/mount_plan.h"

#include <linux/mount.h>
#include <sys/mount.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::runtime {
namespace {

struct Attribute {
  absl::string_view name;
  bool on;
  uint64_t value;
};
// atime is one field of several values in the kernel; ATIME as "clear" resets it to the default.
constexpr Attribute kAttributes[] = {{"ro", true, MOUNT_ATTR_RDONLY},
                                     {"rw", false, MOUNT_ATTR_RDONLY},
                                     {"nosuid", true, MOUNT_ATTR_NOSUID},
                                     {"suid", false, MOUNT_ATTR_NOSUID},
                                     {"nodev", true, MOUNT_ATTR_NODEV},
                                     {"dev", false, MOUNT_ATTR_NODEV},
                                     {"noexec", true, MOUNT_ATTR_NOEXEC},
                                     {"exec", false, MOUNT_ATTR_NOEXEC},
                                     {"nodiratime", true, MOUNT_ATTR_NODIRATIME},
                                     {"diratime", false, MOUNT_ATTR_NODIRATIME},
                                     {"nosymfollow", true, MOUNT_ATTR_NOSYMFOLLOW},
                                     {"symfollow", false, MOUNT_ATTR_NOSYMFOLLOW},
                                     {"noatime", true, MOUNT_ATTR_NOATIME},
                                     {"atime", false, MOUNT_ATTR_NOATIME},
                                     {"strictatime", true, MOUNT_ATTR_STRICTATIME},
                                     {"nostrictatime", false, MOUNT_ATTR_STRICTATIME},
                                     {"relatime", true, MOUNT_ATTR_RELATIME},
                                     {"norelatime", false, MOUNT_ATTR_STRICTATIME}};

constexpr absl::string_view kFileSystemFlags[] = {"sync", "dirsync", "mand", "lazytime"};
// Accepted without effect: the defaults themselves, or what the kernel no longer has.
constexpr absl::string_view kIgnored[] = {"defaults", "async",  "nomand",  "nolazytime",
                                          "loud",     "silent", "remount", "noiversion",
                                          "iversion", "acl",    "noacl"};
constexpr absl::string_view kPropagations[] = {"private", "rprivate", "shared",     "rshared",
                                               "slave",   "rslave",   "unbindable", "runbindable"};
constexpr absl::string_view kProcAllowed[] = {"/proc/cpuinfo",
                                              "/proc/diskstats",
                                              "/proc/meminfo",
                                              "/proc/stat",
                                              "/proc/swaps",
                                              "/proc/uptime",
                                              "/proc/loadavg",
                                              "/proc/slabinfo",
                                              "/proc/net/dev",
                                              "/proc/sys/kernel/ns_last_pid",
                                              "/proc/sys/crypto/fips_enabled"};

template <size_t N>
bool IsIn(const absl::string_view (&list)[N], absl::string_view name) {
  return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

const Attribute* FindAttribute(absl::string_view name) {
  const auto* found =
      std::find_if(std::begin(kAttributes), std::end(kAttributes),
                   [&](const Attribute& attribute) { return attribute.name == name; });
  return found == std::end(kAttributes) ? nullptr : found;
}

// The later option wins, as with mount(8).
void SetAttribute(const Attribute& attribute, uint64_t* set, uint64_t* clear) {
  const bool atime = (attribute.value & ~uint64_t{MOUNT_ATTR__ATIME}) == 0;
  if (atime) {
    *set &= ~uint64_t{MOUNT_ATTR__ATIME};
    *clear |= MOUNT_ATTR__ATIME;
    if (attribute.on) *set |= attribute.value;
    return;
  }
  if (attribute.on) {
    *set |= attribute.value;
    *clear &= ~attribute.value;
  } else {
    *set &= ~attribute.value;
    *clear |= attribute.value;
  }
}

// True when the option was one of ours.
bool TakeOption(absl::string_view option, MountPlan* plan) {
  if (const Attribute* attribute = FindAttribute(option)) {
    SetAttribute(*attribute, &plan->set, &plan->clear);
    return true;
  }
  if (absl::StartsWith(option, "r")) {
    if (const Attribute* attribute = FindAttribute(option.substr(1))) {
      SetAttribute(*attribute, &plan->recursive_set, &plan->recursive_clear);
      return true;
    }
  }
  if (option == "bind" || option == "rbind") {
    plan->bind = true;
    plan->recursive = plan->recursive || option == "rbind";
    return true;
  }
  if (uint64_t flag = PropagationFlag(option); flag != 0) {
    plan->propagation.push_back({flag & ~uint64_t{MS_REC}, (flag & MS_REC) != 0});
    return true;
  }
  if (option == "tmpcopyup") return plan->copy_up = true;
  if (option == "idmap") return plan->idmap = true;
  if (option == "ridmap") return plan->idmap = plan->idmap_recursive = true;
  if (IsIn(kFileSystemFlags, option)) {
    plan->flags.emplace_back(option);
    return true;
  }
  return IsIn(kIgnored, option);
}

absl::Status CheckPlace(const MountPlan& plan, absl::string_view at) {
  if (plan.destination == "/") {
    return absl::InvalidArgumentError(
        absl::StrCat(at, ".destination: nothing can be mounted on '/'"));
  }
  const bool in_proc = plan.destination == "/proc" || absl::StartsWith(plan.destination, "/proc/");
  if (!in_proc) return absl::OkStatus();
  // Something else on /proc would fake what the runtime writes there (labels, limits):
  // CVE-2019-16884.
  const bool whole = plan.destination == "/proc" &&
                     (plan.type == "proc" || (plan.bind && CleanPath(plan.source) == "/proc"));
  if (whole || (plan.bind && IsIn(kProcAllowed, plan.destination))) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(at, ".destination: '", EscapeForTerminal(plan.destination),
                   "' is inside /proc, where nothing but a few files may be covered"));
}

}  // namespace

uint64_t PropagationFlag(absl::string_view name) {
  uint64_t recursive = 0;
  if (absl::ConsumePrefix(&name, "r")) recursive = MS_REC;
  if (name == "private") return MS_PRIVATE | recursive;
  if (name == "shared") return MS_SHARED | recursive;
  if (name == "slave") return MS_SLAVE | recursive;
  if (name == "unbindable") return MS_UNBINDABLE | recursive;
  return 0;
}

std::string CleanPath(absl::string_view path) {
  std::vector<absl::string_view> parts;
  for (absl::string_view part : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    if (part == ".") continue;
    if (part != "..") {
      parts.push_back(part);
    } else if (!parts.empty()) {
      parts.pop_back();
    }
  }
  return absl::StrCat("/", absl::StrJoin(parts, "/"));
}

absl::StatusOr<MountPlan> PlanMount(const oci::Mount& mount, size_t index) {
  const std::string at = absl::StrCat("mounts[", index, "]");
  MountPlan plan;
  plan.destination = CleanPath(mount.destination);
  plan.type = mount.type;
  plan.source = mount.source;
  plan.uid_mappings = mount.uid_mappings;
  plan.gid_mappings = mount.gid_mappings;
  if (!mount.uid_mappings.empty()) plan.idmap = true;
  plan.bind = mount.type == "bind" || mount.type == "rbind";
  plan.recursive = mount.type == "rbind";
  for (const std::string& option : mount.options) {
    if (option.empty() || TakeOption(option, &plan)) continue;
    const size_t equals = option.find('=');
    plan.data.push_back(
        {option.substr(0, equals), equals == std::string::npos ? "" : option.substr(equals + 1)});
  }
  if (plan.bind) {
    if (plan.source.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(at, ".source: a bind mount needs one"));
    }
    // Ignoring them would hide a mistake, such as "size=" meant for a tmpfs; but container engines
    // send what users wrote for SELinux ("z"), which is theirs to have handled.
    for (const auto& [name, value] : plan.data) {
      if (name != "z" && name != "Z" && name != "U" && name != "nocopy" && name != "context") {
        return absl::InvalidArgumentError(absl::StrCat(at, ".options: '", EscapeForTerminal(name),
                                                       "' does not apply to a bind mount"));
      }
    }
    plan.data.clear();
  } else if (plan.type.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(at, ".type: required unless the mount is a bind"));
  }
  if (plan.idmap && !plan.bind) {
    return absl::InvalidArgumentError(absl::StrCat(at, ".options: idmap needs a bind mount"));
  }
  RETURN_IF_ERROR(CheckPlace(plan, at));
  return plan;
}

std::vector<std::string> KnownMountOptions() {
  std::vector<std::string> names = {"bind", "rbind", "idmap", "ridmap", "tmpcopyup"};
  for (const Attribute& attribute : kAttributes) {
    names.emplace_back(attribute.name);
    names.push_back(absl::StrCat("r", attribute.name));
  }
  for (absl::string_view name : kFileSystemFlags) names.emplace_back(name);
  for (absl::string_view name : kIgnored) names.emplace_back(name);
  for (absl::string_view name : kPropagations) names.emplace_back(name);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

}  // namespace gantry::runtime
