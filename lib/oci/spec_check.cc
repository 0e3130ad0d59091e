// The rules of config.json that types cannot say. All run before anything is changed, so every
// error names the path of the bad key and leaves nothing behind.
#include <sys/stat.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/oci/check.h"
#include "lib/oci/spec.h"

namespace gantry::oci {
namespace {

using namespace check;  // The words these rules are written in.

constexpr size_t kMaxHostnameBytes = 64;

absl::Status CheckIdMappings(const std::vector<IdMapping>& mappings, const std::string& path) {
  for (size_t i = 0; i < mappings.size(); ++i) {
    const IdMapping& a = mappings[i];
    const std::string at = absl::StrCat(path, "[", i, "]");
    if (a.size == 0) return Wrong(Key(at, "size"), "must be at least 1");
    // Wide arithmetic: the end of a range may not wrap around to small ids.
    if (uint64_t{a.container_id} + a.size > uint64_t{kMaxId} + 1) {
      return Wrong(at, "containerID + size goes beyond the last id, 4294967294");
    }
    if (uint64_t{a.host_id} + a.size > uint64_t{kMaxId} + 1) {
      return Wrong(at, "hostID + size goes beyond the last id, 4294967294");
    }
    for (size_t j = 0; j < i; ++j) {
      const IdMapping& b = mappings[j];
      const bool overlap = uint64_t{a.container_id} < uint64_t{b.container_id} + b.size &&
                           uint64_t{b.container_id} < uint64_t{a.container_id} + a.size;
      if (overlap) return Wrong(at, absl::StrCat("overlaps ", path, "[", j, "]"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckHooks(const Hooks& hooks) {
  const std::pair<const char*, const std::vector<Hook>*> all[] = {
      {"hooks.prestart", &hooks.prestart},
      {"hooks.createRuntime", &hooks.create_runtime},
      {"hooks.createContainer", &hooks.create_container},
      {"hooks.startContainer", &hooks.start_container},
      {"hooks.poststart", &hooks.poststart},
      {"hooks.poststop", &hooks.poststop}};
  for (const auto& [name, list] : all) {
    for (size_t i = 0; i < list->size(); ++i) {
      const Hook& hook = (*list)[i];
      const std::string at = absl::StrCat(name, "[", i, "]");
      RETURN_IF_ERROR(CheckAbsolute(Key(at, "path"), hook.path));
      RETURN_IF_ERROR(CheckNoNuls(Key(at, "args"), hook.args));
      RETURN_IF_ERROR(CheckNoNuls(Key(at, "env"), hook.env));
      if (hook.timeout_seconds && *hook.timeout_seconds < 1) {
        return Wrong(Key(at, "timeout"), "must be at least 1 second");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckNamespaces(const Linux& linux_config) {
  static constexpr absl::string_view kTypes[] = {"mount", "pid",  "network", "uts",
                                                 "ipc",   "user", "cgroup",  "time"};
  std::set<std::string> seen;
  for (size_t i = 0; i < linux_config.namespaces.size(); ++i) {
    const Namespace& ns = linux_config.namespaces[i];
    const std::string at = absl::StrCat("linux.namespaces[", i, "]");
    RETURN_IF_ERROR(CheckOneOf(Key(at, "type"), ns.type, kTypes));
    if (!seen.insert(ns.type).second) {
      return Wrong(Key(at, "type"), absl::StrCat("the namespace '", ns.type, "' is given twice"));
    }
    if (!ns.path.empty()) RETURN_IF_ERROR(CheckAbsolute(Key(at, "path"), ns.path));
  }
  const Namespace* user = linux_config.FindNamespace("user");
  const bool mapped = !linux_config.uid_mappings.empty() || !linux_config.gid_mappings.empty();
  if (mapped && (user == nullptr)) {
    return Wrong("linux.uidMappings", "id mappings need a user namespace in linux.namespaces");
  }
  RETURN_IF_ERROR(CheckIdMappings(linux_config.uid_mappings, "linux.uidMappings"));
  RETURN_IF_ERROR(CheckIdMappings(linux_config.gid_mappings, "linux.gidMappings"));
  if (user != nullptr && user->path.empty()) {
    if (linux_config.uid_mappings.empty()) {
      return Wrong("linux.uidMappings", "a new user namespace needs at least one mapping");
    }
    if (linux_config.gid_mappings.empty()) {
      return Wrong("linux.gidMappings", "a new user namespace needs at least one mapping");
    }
  }
  for (const auto& [clock, offset] : linux_config.time_offsets) {
    const std::string at = absl::StrCat("linux.timeOffsets.", EscapeForTerminal(clock));
    if (clock != "boottime" && clock != "monotonic") {
      return Wrong(at, "is not a clock; known are boottime and monotonic");
    }
    if (offset.nanoseconds > 999999999) return Wrong(at, "nanosecs must be below 1000000000");
    const Namespace* time = linux_config.FindNamespace("time");
    if (time == nullptr) return Wrong(at, "needs a time namespace in linux.namespaces");
    if (!time->path.empty()) return Wrong(at, "cannot be set on a time namespace that is joined");
  }
  return absl::OkStatus();
}

absl::Status CheckDevices(const std::vector<Device>& devices) {
  static constexpr absl::string_view kTypes[] = {"c", "b", "u", "p"};
  for (size_t i = 0; i < devices.size(); ++i) {
    const Device& device = devices[i];
    const std::string at = absl::StrCat("linux.devices[", i, "]");
    RETURN_IF_ERROR(CheckAbsolute(Key(at, "path"), device.path));
    RETURN_IF_ERROR(CheckOneOf(Key(at, "type"), device.type, kTypes));
    if (device.type != "p") {
      if (device.major < 0 || device.major > 4095) {
        return Wrong(Key(at, "major"), absl::StrCat(device.major, " is not from 0 to 4095"));
      }
      if (device.minor < 0 || device.minor > 1048575) {
        return Wrong(Key(at, "minor"), absl::StrCat(device.minor, " is not from 0 to 1048575"));
      }
    }
    // Docker sends the type bits of stat along.
    if (device.file_mode && (*device.file_mode & ~(uint32_t{S_IFMT} | 07777)) != 0) {
      return Wrong(Key(at, "fileMode"), absl::StrCat(*device.file_mode, " is not a file mode"));
    }
    if (device.uid.value_or(0) > kMaxId) return Wrong(Key(at, "uid"), "is beyond 4294967294");
    if (device.gid.value_or(0) > kMaxId) return Wrong(Key(at, "gid"), "is beyond 4294967294");
  }
  return absl::OkStatus();
}

absl::Status CheckNonEmptyPaths(const std::vector<std::string>& paths, const std::string& path) {
  for (size_t i = 0; i < paths.size(); ++i) {
    const std::string at = absl::StrCat(path, "[", i, "]");
    if (paths[i].empty()) return Wrong(at, "must not be empty");
    RETURN_IF_ERROR(CheckNoNul(at, paths[i]));
  }
  return absl::OkStatus();
}

absl::Status CheckIntelRdt(const IntelRdt& rdt) {
  const std::string at = "linux.intelRdt";
  if (rdt.clos_id != "/" && (absl::StrContains(rdt.clos_id, '/') || rdt.clos_id == "." ||
                             rdt.clos_id == ".." || absl::StrContains(rdt.clos_id, '\n'))) {
    return Wrong(Key(at, "closID"), absl::StrCat(Quote(rdt.clos_id), " is not a directory's name"));
  }
  if (!rdt.mem_bw_schema.empty() && !absl::StartsWith(rdt.mem_bw_schema, "MB:")) {
    return Wrong(Key(at, "memBwSchema"), "must begin with 'MB:'");
  }
  return CheckOneLine(Key(at, "memBwSchema"), rdt.mem_bw_schema);
}

absl::Status CheckMemoryPolicy(const MemoryPolicy& policy) {
  static constexpr absl::string_view kModes[] = {
      "MPOL_DEFAULT",   "MPOL_BIND",           "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE",
      "MPOL_PREFERRED", "MPOL_PREFERRED_MANY", "MPOL_LOCAL"};
  static constexpr absl::string_view kFlags[] = {"MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES",
                                                 "MPOL_F_STATIC_NODES"};
  const std::string at = "linux.memoryPolicy";
  RETURN_IF_ERROR(CheckOneOf(Key(at, "mode"), policy.mode, kModes));
  for (size_t i = 0; i < policy.flags.size(); ++i) {
    RETURN_IF_ERROR(CheckOneOf(absl::StrCat(at, ".flags[", i, "]"), policy.flags[i], kFlags));
  }
  return CheckCharacters(Key(at, "nodes"), policy.nodes, "-, ", "a list of nodes such as 0-1,3");
}

absl::Status CheckNetDevices(const Linux& linux_config) {
  constexpr size_t kMaxNameBytes = 15;
  if (!linux_config.net_devices.empty() && linux_config.FindNamespace("network") == nullptr) {
    return Wrong("linux.netDevices", "needs a network namespace in linux.namespaces");
  }
  const auto valid = [](absl::string_view name) {
    return !name.empty() && name.size() <= kMaxNameBytes && name != "." && name != ".." &&
           std::none_of(name.begin(), name.end(), [](unsigned char c) {
             return c == '/' || c == ':' || absl::ascii_isspace(c) || absl::ascii_iscntrl(c);
           });
  };
  for (const auto& [name, renamed] : linux_config.net_devices) {
    const std::string at = absl::StrCat("linux.netDevices.", EscapeForTerminal(name));
    if (!valid(name)) return Wrong(at, "is not an interface's name");
    if (!renamed.empty() && !valid(renamed)) {
      return Wrong(Key(at, "name"), absl::StrCat(Quote(renamed), " is not an interface's name"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLinux(const Linux& linux_config) {
  RETURN_IF_ERROR(CheckNamespaces(linux_config));
  RETURN_IF_ERROR(CheckDevices(linux_config.devices));
  RETURN_IF_ERROR(CheckOneLine("linux.cgroupsPath", linux_config.cgroups_path));
  for (absl::string_view part : absl::StrSplit(linux_config.cgroups_path, '/')) {
    if (part == "..") return Wrong("linux.cgroupsPath", "must not contain '..'");
  }
  if (linux_config.resources) {
    RETURN_IF_ERROR(CheckResources(*linux_config.resources, "linux.resources"));
  }
  if (!linux_config.rootfs_propagation.empty()) {
    static constexpr absl::string_view kModes[] = {"private",  "shared",  "slave",  "unbindable",
                                                   "rprivate", "rshared", "rslave", "runbindable"};
    RETURN_IF_ERROR(CheckOneOf("linux.rootfsPropagation", linux_config.rootfs_propagation, kModes));
  }
  if (linux_config.seccomp) RETURN_IF_ERROR(CheckSeccomp(*linux_config.seccomp));
  for (const auto& [name, value] : linux_config.sysctl) {
    RETURN_IF_ERROR(CheckSysctl(linux_config, name, value));
  }
  RETURN_IF_ERROR(CheckNonEmptyPaths(linux_config.masked_paths, "linux.maskedPaths"));
  RETURN_IF_ERROR(CheckNonEmptyPaths(linux_config.readonly_paths, "linux.readonlyPaths"));
  RETURN_IF_ERROR(CheckOneLine("linux.mountLabel", linux_config.mount_label));
  if (linux_config.intel_rdt) RETURN_IF_ERROR(CheckIntelRdt(*linux_config.intel_rdt));
  if (linux_config.memory_policy) RETURN_IF_ERROR(CheckMemoryPolicy(*linux_config.memory_policy));
  if (linux_config.personality) {
    static constexpr absl::string_view kDomains[] = {"LINUX", "LINUX32"};
    RETURN_IF_ERROR(
        CheckOneOf("linux.personality.domain", linux_config.personality->domain, kDomains));
    if (!linux_config.personality->flags.empty()) {
      return Wrong("linux.personality.flags", "no flags are supported");
    }
  }
  return CheckNetDevices(linux_config);
}

absl::Status CheckVersion(absl::string_view version) {
  const std::vector<absl::string_view> parts =
      absl::StrSplit(version.substr(0, version.find_first_of("-+")), '.');
  int number = 0;
  const bool numeric =
      parts.size() == 3 && std::all_of(parts.begin(), parts.end(), [&](auto part) {
        return !part.empty() && absl::ascii_isdigit(part[0]) && absl::SimpleAtoi(part, &number);
      });
  if (!numeric) return Wrong("ociVersion", absl::StrCat(Quote(version), " is not a version x.y.z"));
  if (parts[0] != "1") {
    return Wrong("ociVersion", absl::StrCat("version ", version, " is not supported; 1.x is"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckMounts(const std::vector<Mount>& mounts) {
  for (size_t i = 0; i < mounts.size(); ++i) {
    const Mount& mount = mounts[i];
    const std::string at = absl::StrCat("mounts[", i, "]");
    if (mount.destination.empty()) return Wrong(Key(at, "destination"), "must not be empty");
    RETURN_IF_ERROR(CheckNoNul(Key(at, "destination"), mount.destination));
    RETURN_IF_ERROR(CheckNoNul(Key(at, "source"), mount.source));
    RETURN_IF_ERROR(CheckNoNul(Key(at, "type"), mount.type));
    RETURN_IF_ERROR(CheckNoNuls(Key(at, "options"), mount.options));
    RETURN_IF_ERROR(CheckIdMappings(mount.uid_mappings, Key(at, "uidMappings")));
    RETURN_IF_ERROR(CheckIdMappings(mount.gid_mappings, Key(at, "gidMappings")));
    if (mount.uid_mappings.empty() != mount.gid_mappings.empty()) {
      return Wrong(at, "uidMappings and gidMappings must be given together");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSpec(const Spec& spec) {
  RETURN_IF_ERROR(CheckVersion(spec.oci_version));
  if (!spec.root) return Wrong("root", "required, but missing");
  if (spec.root->path.empty()) return Wrong("root.path", "must not be empty");
  RETURN_IF_ERROR(CheckNoNul("root.path", spec.root->path));
  if (spec.process) RETURN_IF_ERROR(CheckProcess(*spec.process, "process"));
  const std::pair<const char*, const std::string*> names[] = {{"hostname", &spec.hostname},
                                                              {"domainname", &spec.domainname}};
  for (const auto& [key, value] : names) {
    if (value->empty()) continue;
    RETURN_IF_ERROR(CheckOneLine(key, *value));
    if (value->size() > kMaxHostnameBytes) return Wrong(key, "is longer than 64 bytes");
    if (spec.linux_.FindNamespace("uts") == nullptr) {
      return Wrong(key, "needs a uts namespace in linux.namespaces");
    }
  }
  RETURN_IF_ERROR(CheckMounts(spec.mounts));
  RETURN_IF_ERROR(CheckHooks(spec.hooks));
  return CheckLinux(spec.linux_);
}

}  // namespace gantry::oci
