// The rules of config.json that types cannot say. All run before anything is changed, so every
// error names the path of the bad key and leaves nothing behind.
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/oci/spec.h"

namespace gantry::oci {
namespace {

// 4294967295 is (uid_t)-1, which the kernel reads as "leave unchanged" (SECURITY-RULES 19).
constexpr uint32_t kMaxId = 4294967294;
constexpr size_t kMaxHostnameBytes = 64;
constexpr uint32_t kMaxErrno = 4095;

absl::Status Wrong(absl::string_view path, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", reason));
}

std::string Key(absl::string_view path, absl::string_view key) {
  return path.empty() ? std::string(key) : absl::StrCat(path, ".", key);
}

std::string Quote(absl::string_view text) {
  return absl::StrCat("'", EscapeForTerminal(text.substr(0, 128)), "'");
}

template <typename List>
absl::Status CheckOneOf(absl::string_view path, absl::string_view value, const List& allowed) {
  for (absl::string_view candidate : allowed) {
    if (candidate == value) return absl::OkStatus();
  }
  return Wrong(path, absl::StrCat(Quote(value), " is not one of ", absl::StrJoin(allowed, ", ")));
}

// Strings that go to the kernel end at a zero byte: one inside would cut off what was checked.
absl::Status CheckNoNul(absl::string_view path, absl::string_view value) {
  if (!absl::StrContains(value, absl::string_view("\0", 1))) return absl::OkStatus();
  return Wrong(path, "contains a zero byte");
}

absl::Status CheckNoNuls(absl::string_view path, const std::vector<std::string>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    RETURN_IF_ERROR(CheckNoNul(absl::StrCat(path, "[", i, "]"), values[i]));
  }
  return absl::OkStatus();
}

absl::Status CheckOneLine(absl::string_view path, absl::string_view value) {
  for (char c : value) {
    if (c == '\n' || c == '\0' || c == '\r') return Wrong(path, "must be a single line of text");
  }
  return absl::OkStatus();
}

absl::Status CheckAbsolute(absl::string_view path, absl::string_view value) {
  RETURN_IF_ERROR(CheckNoNul(path, value));
  if (absl::StartsWith(value, "/")) return absl::OkStatus();
  return Wrong(path, absl::StrCat(Quote(value), " is not an absolute path"));
}

absl::Status CheckCharacters(absl::string_view path, absl::string_view value,
                             absl::string_view others, absl::string_view what) {
  for (char c : value) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c)) && !absl::StrContains(others, c)) {
      return Wrong(path, absl::StrCat(Quote(value), " is not ", what));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckCapabilities(const Capabilities& sets, const std::string& path) {
  const std::pair<const char*, const std::vector<std::string>*> all[] = {
      {"bounding", &sets.bounding},
      {"permitted", &sets.permitted},
      {"effective", &sets.effective},
      {"inheritable", &sets.inheritable},
      {"ambient", &sets.ambient}};
  for (const auto& [name, set] : all) {
    for (size_t i = 0; i < set->size(); ++i) {
      // A well-formed name that we do not know is a newer kernel's; not having it is safe.
      absl::string_view rest = (*set)[i];
      const bool well_formed = absl::ConsumePrefix(&rest, "CAP_") && !rest.empty() &&
                               std::all_of(rest.begin(), rest.end(), [](char c) {
                                 return absl::ascii_isupper(c) || c == '_';
                               });
      if (!well_formed) {
        return Wrong(
            absl::StrCat(path, ".", name, "[", i, "]"),
            absl::StrCat(Quote((*set)[i]), " is not a capability's name, such as CAP_CHOWN"));
      }
    }
  }
  return absl::OkStatus();
}

constexpr absl::string_view kRlimits[] = {
    "RLIMIT_AS",     "RLIMIT_CORE",   "RLIMIT_CPU",        "RLIMIT_DATA",
    "RLIMIT_FSIZE",  "RLIMIT_LOCKS",  "RLIMIT_MEMLOCK",    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",   "RLIMIT_NOFILE", "RLIMIT_NPROC",      "RLIMIT_RSS",
    "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK"};

absl::Status CheckRlimits(const std::vector<Rlimit>& limits, const std::string& path) {
  std::set<std::string> seen;
  for (size_t i = 0; i < limits.size(); ++i) {
    const std::string at = absl::StrCat(path, "[", i, "]");
    RETURN_IF_ERROR(CheckOneOf(Key(at, "type"), limits[i].type, kRlimits));
    if (!seen.insert(limits[i].type).second) {
      return Wrong(Key(at, "type"), absl::StrCat(limits[i].type, " is given twice"));
    }
    if (limits[i].soft > limits[i].hard) {
      return Wrong(Key(at, "soft"),
                   absl::StrCat(limits[i].soft, " is above the hard limit ", limits[i].hard));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckScheduler(const Scheduler& scheduler, const std::string& path) {
  static constexpr absl::string_view kPolicies[] = {"SCHED_OTHER",   "SCHED_FIFO", "SCHED_RR",
                                                    "SCHED_BATCH",   "SCHED_ISO",  "SCHED_IDLE",
                                                    "SCHED_DEADLINE"};
  static constexpr absl::string_view kFlags[] = {
      "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM",     "SCHED_FLAG_DL_OVERRUN",
      "SCHED_FLAG_KEEP_POLICY",   "SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN",
      "SCHED_FLAG_UTIL_CLAMP_MAX"};
  RETURN_IF_ERROR(CheckOneOf(Key(path, "policy"), scheduler.policy, kPolicies));
  for (size_t i = 0; i < scheduler.flags.size(); ++i) {
    RETURN_IF_ERROR(CheckOneOf(absl::StrCat(path, ".flags[", i, "]"), scheduler.flags[i], kFlags));
  }
  if (scheduler.nice < -20 || scheduler.nice > 19) {
    return Wrong(Key(path, "nice"), absl::StrCat(scheduler.nice, " is not from -20 to 19"));
  }
  if (scheduler.priority != 0 && scheduler.policy != "SCHED_FIFO" &&
      scheduler.policy != "SCHED_RR") {
    return Wrong(Key(path, "priority"), "can only be given with SCHED_FIFO or SCHED_RR");
  }
  const bool deadline = scheduler.runtime != 0 || scheduler.deadline != 0 || scheduler.period != 0;
  if (deadline && scheduler.policy != "SCHED_DEADLINE") {
    return Wrong(Key(path, "runtime"), "runtime, deadline and period need SCHED_DEADLINE");
  }
  return absl::OkStatus();
}

absl::Status CheckIoPriority(const IoPriority& io, const std::string& path) {
  static constexpr absl::string_view kClasses[] = {"IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE",
                                                   "IOPRIO_CLASS_IDLE"};
  RETURN_IF_ERROR(CheckOneOf(Key(path, "class"), io.priority_class, kClasses));
  if (io.priority < 0 || io.priority > 7) {
    return Wrong(Key(path, "priority"), absl::StrCat(io.priority, " is not from 0 to 7"));
  }
  return absl::OkStatus();
}

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

constexpr absl::string_view kSeccompActions[] = {
    "SCMP_ACT_KILL",  "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",  "SCMP_ACT_ERRNO",        "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW", "SCMP_ACT_LOG",          "SCMP_ACT_NOTIFY"};
constexpr absl::string_view kSeccompOperators[] = {
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE",       "SCMP_CMP_EQ",
    "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"};
constexpr absl::string_view kSeccompFlags[] = {
    "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"};
constexpr absl::string_view kSeccompArchitectures[] = {
    "SCMP_ARCH_X86",         "SCMP_ARCH_X86_64",      "SCMP_ARCH_X32",    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",     "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K",   "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",      "SCMP_ARCH_MIPS64N32",   "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC",         "SCMP_ARCH_PPC64",  "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",        "SCMP_ARCH_S390X",       "SCMP_ARCH_SH",     "SCMP_ARCH_SHEB",
    "SCMP_ARCH_PARISC",      "SCMP_ARCH_PARISC64",    "SCMP_ARCH_RISCV64"};

absl::Status CheckSeccomp(const Seccomp& seccomp) {
  const std::string at = "linux.seccomp";
  RETURN_IF_ERROR(CheckOneOf(Key(at, "defaultAction"), seccomp.default_action, kSeccompActions));
  if (seccomp.default_action == "SCMP_ACT_NOTIFY") {
    return Wrong(Key(at, "defaultAction"), "SCMP_ACT_NOTIFY would stop the runtime itself");
  }
  if (seccomp.default_errno_ret.value_or(0) > kMaxErrno) {
    return Wrong(Key(at, "defaultErrnoRet"), "is not an errno (at most 4095)");
  }
  for (size_t i = 0; i < seccomp.architectures.size(); ++i) {
    RETURN_IF_ERROR(CheckOneOf(absl::StrCat(at, ".architectures[", i, "]"),
                               seccomp.architectures[i], kSeccompArchitectures));
  }
  for (size_t i = 0; i < seccomp.flags.size(); ++i) {
    RETURN_IF_ERROR(
        CheckOneOf(absl::StrCat(at, ".flags[", i, "]"), seccomp.flags[i], kSeccompFlags));
  }
  bool notifies = false;
  for (size_t i = 0; i < seccomp.syscalls.size(); ++i) {
    const SeccompRule& rule = seccomp.syscalls[i];
    const std::string here = absl::StrCat(at, ".syscalls[", i, "]");
    if (rule.names.empty()) return Wrong(Key(here, "names"), "must name at least one system call");
    RETURN_IF_ERROR(CheckNoNuls(Key(here, "names"), rule.names));
    RETURN_IF_ERROR(CheckOneOf(Key(here, "action"), rule.action, kSeccompActions));
    notifies = notifies || rule.action == "SCMP_ACT_NOTIFY";
    if (rule.errno_ret.value_or(0) > kMaxErrno) {
      return Wrong(Key(here, "errnoRet"), "is not an errno (at most 4095)");
    }
    for (size_t j = 0; j < rule.args.size(); ++j) {
      const std::string arg = absl::StrCat(here, ".args[", j, "]");
      if (rule.args[j].index > 5) return Wrong(Key(arg, "index"), "must be from 0 to 5");
      RETURN_IF_ERROR(CheckOneOf(Key(arg, "op"), rule.args[j].op, kSeccompOperators));
    }
  }
  if (notifies && seccomp.listener_path.empty()) {
    return Wrong(Key(at, "listenerPath"), "SCMP_ACT_NOTIFY needs it");
  }
  if (!seccomp.listener_path.empty()) {
    RETURN_IF_ERROR(CheckAbsolute(Key(at, "listenerPath"), seccomp.listener_path));
  }
  if (!seccomp.listener_metadata.empty() && seccomp.listener_path.empty()) {
    return Wrong(Key(at, "listenerMetadata"), "needs listenerPath");
  }
  return absl::OkStatus();
}

// Only what a namespace of the container's own holds may be set: anything else is the host's
// (SECURITY-RULES 22).
absl::Status CheckSysctl(const Linux& linux_config, const std::string& name,
                         const std::string& value) {
  const std::string at = absl::StrCat("linux.sysctl.", EscapeForTerminal(name));
  // Both "net.ipv4.ip_forward" and "net/ipv4/ip_forward" are in use; a slash first means that dots
  // belong to names (of interfaces).
  const bool slashes = name.find('/') != std::string::npos &&
                       (name.find('.') == std::string::npos || name.find('/') < name.find('.'));
  for (char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && !absl::StrContains("_.-/", c)) {
      return Wrong(at, "a sysctl's name has only letters, digits and _ . - /");
    }
  }
  for (absl::string_view part : absl::StrSplit(name, slashes ? '/' : '.')) {
    if (part.empty() || part == "." || part == "..") return Wrong(at, "is not a sysctl's name");
  }
  if (!slashes && absl::StrContains(name, "..")) return Wrong(at, "is not a sysctl's name");
  RETURN_IF_ERROR(CheckOneLine(at, value));

  const std::string dotted = slashes ? absl::StrJoin(absl::StrSplit(name, '/'), ".") : name;
  static constexpr absl::string_view kIpc[] = {
      "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
      "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"};
  std::string needed;
  if (std::find(std::begin(kIpc), std::end(kIpc), dotted) != std::end(kIpc) ||
      absl::StartsWith(dotted, "fs.mqueue.")) {
    needed = "ipc";
  } else if (absl::StartsWith(dotted, "net.")) {
    needed = "network";
  } else if (dotted == "kernel.domainname") {
    needed = "uts";
  } else if (dotted == "kernel.hostname") {
    return Wrong(at, "is set through the document's hostname");
  } else if (absl::StartsWith(dotted, "user.")) {
    needed = "user";
  } else {
    return Wrong(at, "is not in a separate kernel namespace");
  }
  if (linux_config.FindNamespace(needed) == nullptr) {
    return Wrong(at, absl::StrCat("is not allowed in the host's ", needed,
                                  " namespace; add one to linux.namespaces"));
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

absl::Status CheckProcess(const Process& process, absl::string_view path) {
  if (process.args.empty()) return Wrong(Key(path, "args"), "must name a program");
  RETURN_IF_ERROR(CheckNoNuls(Key(path, "args"), process.args));
  RETURN_IF_ERROR(CheckNoNuls(Key(path, "env"), process.env));
  if (process.cwd.empty()) return Wrong(Key(path, "cwd"), "must not be empty");
  RETURN_IF_ERROR(CheckAbsolute(Key(path, "cwd"), process.cwd));
  const User& user = process.user;
  if (user.uid > kMaxId) return Wrong(Key(path, "user.uid"), "is beyond 4294967294");
  if (user.gid > kMaxId) return Wrong(Key(path, "user.gid"), "is beyond 4294967294");
  if (user.umask.value_or(0) > 0777) return Wrong(Key(path, "user.umask"), "is above 0777");
  for (size_t i = 0; i < user.additional_gids.size(); ++i) {
    if (user.additional_gids[i] > kMaxId) {
      return Wrong(absl::StrCat(Key(path, "user.additionalGids"), "[", i, "]"),
                   "is beyond 4294967294");
    }
  }
  if (process.capabilities) {
    RETURN_IF_ERROR(CheckCapabilities(*process.capabilities, Key(path, "capabilities")));
  }
  RETURN_IF_ERROR(CheckRlimits(process.rlimits, Key(path, "rlimits")));
  if (process.oom_score_adj && (*process.oom_score_adj < -1000 || *process.oom_score_adj > 1000)) {
    return Wrong(Key(path, "oomScoreAdj"),
                 absl::StrCat(*process.oom_score_adj, " is not from -1000 to 1000"));
  }
  RETURN_IF_ERROR(CheckOneLine(Key(path, "apparmorProfile"), process.apparmor_profile));
  RETURN_IF_ERROR(CheckOneLine(Key(path, "selinuxLabel"), process.selinux_label));
  if (process.scheduler)
    RETURN_IF_ERROR(CheckScheduler(*process.scheduler, Key(path, "scheduler")));
  if (process.io_priority) {
    RETURN_IF_ERROR(CheckIoPriority(*process.io_priority, Key(path, "ioPriority")));
  }
  if (process.exec_cpu_affinity) {
    const std::string at = Key(path, "execCPUAffinity");
    const char* what = "a list of processors such as 0-3,7";
    RETURN_IF_ERROR(
        CheckCharacters(Key(at, "initial"), process.exec_cpu_affinity->initial, "-, ", what));
    RETURN_IF_ERROR(
        CheckCharacters(Key(at, "final"), process.exec_cpu_affinity->final, "-, ", what));
  }
  return absl::OkStatus();
}

absl::Status CheckResources(const Resources& resources, absl::string_view path) {
  static constexpr absl::string_view kDeviceTypes[] = {"", "a", "b", "c"};
  for (size_t i = 0; i < resources.devices.size(); ++i) {
    const DeviceRule& rule = resources.devices[i];
    const std::string at = absl::StrCat(Key(path, "devices"), "[", i, "]");
    RETURN_IF_ERROR(CheckOneOf(Key(at, "type"), rule.type, kDeviceTypes));
    if (rule.major.value_or(-1) < -1 || rule.major.value_or(-1) > 4095) {
      return Wrong(Key(at, "major"), absl::StrCat(*rule.major, " is not from -1 to 4095"));
    }
    if (rule.minor.value_or(-1) < -1 || rule.minor.value_or(-1) > 1048575) {
      return Wrong(Key(at, "minor"), absl::StrCat(*rule.minor, " is not from -1 to 1048575"));
    }
    for (char c : rule.access) {
      if (!absl::StrContains("rwm", c)) {
        return Wrong(Key(at, "access"),
                     absl::StrCat(Quote(rule.access), " is not made of r, w, m"));
      }
    }
  }
  if (resources.cpu) {
    const char* what = "a list such as 0-3,7";
    RETURN_IF_ERROR(CheckCharacters(Key(path, "cpu.cpus"), resources.cpu->cpus, "-, ", what));
    RETURN_IF_ERROR(CheckCharacters(Key(path, "cpu.mems"), resources.cpu->mems, "-, ", what));
  }
  if (resources.memory && resources.memory->swappiness.value_or(0) > 100) {
    return Wrong(Key(path, "memory.swappiness"), "must be from 0 to 100");
  }
  for (size_t i = 0; i < resources.hugepages.size(); ++i) {
    absl::string_view size = resources.hugepages[i].page_size;
    const size_t digits = size.find_first_not_of("0123456789");
    const absl::string_view unit = digits == absl::string_view::npos ? "" : size.substr(digits);
    if (digits == 0 || size.empty() || size[0] == '0' ||
        (unit != "KB" && unit != "MB" && unit != "GB")) {
      return Wrong(absl::StrCat(Key(path, "hugepageLimits"), "[", i, "].pageSize"),
                   absl::StrCat(Quote(size), " is not a size such as 2MB"));
    }
  }
  if (resources.network) {
    for (size_t i = 0; i < resources.network->priorities.size(); ++i) {
      RETURN_IF_ERROR(CheckOneLine(absl::StrCat(Key(path, "network.priorities"), "[", i, "].name"),
                                   resources.network->priorities[i].name));
    }
  }
  for (const auto& [name, limit] : resources.rdma) {
    RETURN_IF_ERROR(CheckOneLine(Key(path, absl::StrCat("rdma.", EscapeForTerminal(name))), name));
  }
  for (const auto& [name, value] : resources.unified) {
    const std::string at = absl::StrCat(Key(path, "unified"), ".", EscapeForTerminal(name));
    const bool well_formed =
        absl::StrContains(name, '.') && !absl::StartsWith(name, ".") &&
        !absl::StartsWith(name, "cgroup.") && !absl::StrContains(name, "..") &&
        std::all_of(name.begin(), name.end(), [](char c) {
          return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("._-", c);
        });
    if (!well_formed) {
      return Wrong(at, "is not a controller's file, such as memory.high");
    }
    RETURN_IF_ERROR(CheckNoNul(at, value));
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
