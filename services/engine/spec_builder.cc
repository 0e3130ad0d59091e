#include "services/engine/spec_builder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/engine/container_config.h"

namespace gantry::engine {
namespace {

constexpr uint64_t kDefaultShmBytes = 64 << 20;
constexpr int64_t kCpuPeriodMicroseconds = 100000;
constexpr char kInitTarget[] = "/sbin/docker-init";

absl::Status Invalid(absl::string_view what) { return absl::InvalidArgumentError(what); }

// Options of the person's that are words in `security_opt`.
struct Security {
  bool no_new_privileges = false;
  bool seccomp_unconfined = false;
  bool system_paths_unconfined = false;
  std::string seccomp_json;
  std::string apparmor;
};

absl::StatusOr<Security> ParseSecurity(const v1::ContainerConfig& config,
                                       std::vector<std::string>* warnings) {
  Security security;
  for (const std::string& option : config.security_opt()) {
    const size_t at = option.find_first_of("=:");
    const std::string key = option.substr(0, at);
    const std::string value = at == std::string::npos ? "" : option.substr(at + 1);
    if (key == "no-new-privileges") {
      if (value != "" && value != "true" && value != "false") {
        return Invalid(absl::StrCat("invalid security option '", option, "': use true or false"));
      }
      security.no_new_privileges = value != "false";
    } else if (key == "seccomp") {
      security.seccomp_unconfined = value == "unconfined";
      security.seccomp_json = value == "unconfined" || value == "builtin" ? "" : value;
    } else if (key == "systempaths" && value == "unconfined") {
      security.system_paths_unconfined = true;
    } else if (key == "apparmor") {
      security.apparmor = value == "unconfined" ? "" : value;
    } else if (key == "label") {
      if (value != "disable") {
        warnings->push_back(
            absl::StrCat("security option '", option, "' has no effect: SELinux is not used"));
      }
    } else {
      return Invalid(absl::StrCat(
          "invalid security option '", option.substr(0, 64),
          "': known are seccomp, no-new-privileges, apparmor, label, systempaths=unconfined"));
    }
  }
  return security;
}

absl::StatusOr<std::vector<std::string>> EffectiveCapabilities(const v1::ContainerConfig& config) {
  if (config.privileged()) return oci::AllCapabilities();
  const auto normal = [](const std::string& name) -> absl::StatusOr<std::string> {
    absl::StatusOr<int> number = oci::CapabilityNumber(name);
    if (!number.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("unknown capability '", name, "'"));
    }
    return std::string(oci::CapabilityName(*number));
  };
  const auto has_all = [](const auto& list) {
    return std::any_of(list.begin(), list.end(),
                       [](const std::string& name) { return absl::EqualsIgnoreCase(name, "all"); });
  };
  std::set<std::string> set;
  if (has_all(config.cap_add())) {
    for (const std::string& name : oci::AllCapabilities()) set.insert(name);
  } else if (!has_all(config.cap_drop())) {
    set.insert(oci::DefaultCapabilities().begin(), oci::DefaultCapabilities().end());
  }
  for (const std::string& name : config.cap_drop()) {
    if (absl::EqualsIgnoreCase(name, "all")) continue;
    ASSIGN_OR_RETURN(std::string capability, normal(name));
    set.erase(capability);
  }
  for (const std::string& name : config.cap_add()) {
    if (absl::EqualsIgnoreCase(name, "all")) continue;
    ASSIGN_OR_RETURN(std::string capability, normal(name));
    set.insert(capability);
  }
  std::vector<std::string> sorted(set.begin(), set.end());
  // The default set in its own order, so that it is recognised and its seccomp profile is at hand.
  return std::is_permutation(sorted.begin(), sorted.end(), oci::DefaultCapabilities().begin(),
                             oci::DefaultCapabilities().end())
             ? oci::DefaultCapabilities()
             : sorted;
}

void RemoveNamespace(oci::Spec& spec, absl::string_view type) {
  auto& all = spec.linux_.namespaces;
  all.erase(std::remove_if(all.begin(), all.end(),
                           [&](const oci::Namespace& ns) { return ns.type == type; }),
            all.end());
}

void RemoveMount(oci::Spec& spec, absl::string_view destination) {
  auto& all = spec.mounts;
  all.erase(std::remove_if(all.begin(), all.end(),
                           [&](const oci::Mount& m) { return m.destination == destination; }),
            all.end());
}

oci::Mount* FindMount(oci::Spec& spec, absl::string_view destination) {
  for (oci::Mount& mount : spec.mounts) {
    if (mount.destination == destination) return &mount;
  }
  return nullptr;
}

void SetNamespaces(const v1::ContainerConfig& config, const std::string& id,
                   const HostPlaces& places, oci::Spec& spec) {
  if (config.network() == "host") {
    RemoveNamespace(spec, "network");
  } else if (oci::Namespace* network = spec.linux_.FindNamespace("network")) {
    network->path = NamespaceLink(places, id, "netns");
  }
  if (config.uts_mode() == "host") RemoveNamespace(spec, "uts");
  if (config.cgroupns_mode() == "host") RemoveNamespace(spec, "cgroup");
  if (config.pid_mode() == "host") {
    RemoveNamespace(spec, "pid");
  } else if (!SharedContainer(config.pid_mode()).empty()) {
    spec.linux_.FindNamespace("pid")->path = NamespaceLink(places, id, "pid");
  }
  if (config.ipc_mode() == "host") {
    RemoveNamespace(spec, "ipc");
    for (const char* path : {"/dev/shm", "/dev/mqueue"}) {
      RemoveMount(spec, path);
      spec.mounts.push_back({.destination = path,
                             .type = "bind",
                             .source = path,
                             .options = {"rbind", "nosuid", "noexec", "nodev"}});
    }
  } else if (!SharedContainer(config.ipc_mode()).empty()) {
    spec.linux_.FindNamespace("ipc")->path = NamespaceLink(places, id, "ipc");
  }
}

void SetShmSize(const v1::ContainerConfig& config, oci::Spec& spec) {
  oci::Mount* shm = FindMount(spec, "/dev/shm");
  if (shm == nullptr || shm->type != "tmpfs") return;
  const uint64_t bytes = config.shm_size_bytes() == 0 ? kDefaultShmBytes : config.shm_size_bytes();
  for (std::string& option : shm->options) {
    if (absl::StartsWith(option, "size=")) option = absl::StrCat("size=", bytes);
  }
}

// Docker's flags for a tmpfs, unless the person says the contrary.
std::vector<std::string> TmpfsOptions(const v1::Mount& mount) {
  std::vector<std::string> options = {"nosuid", "nodev", "noexec"};
  for (const std::string& option : mount.options()) {
    const std::string opposite =
        absl::StartsWith(option, "no") ? option.substr(2) : absl::StrCat("no", option);
    options.erase(
        std::remove_if(options.begin(), options.end(),
                       [&](const std::string& have) { return have == opposite || have == option; }),
        options.end());
    options.push_back(option);
  }
  if (mount.tmpfs_size_bytes() != 0) {
    options.push_back(absl::StrCat("size=", mount.tmpfs_size_bytes()));
  }
  if (mount.tmpfs_mode() != 0) {
    options.push_back(absl::StrFormat("mode=%o", mount.tmpfs_mode() & 07777));
  }
  if (mount.read_only()) options.push_back("ro");
  return options;
}

size_t Depth(absl::string_view path) { return std::count(path.begin(), path.end(), '/'); }

void AddMounts(const v1::ContainerDefinition& definition, const HostPlaces& places,
               oci::Spec& spec) {
  std::vector<oci::Mount> mounts;
  const v1::ContainerConfig& config = definition.config();
  for (const v1::MountPoint& point : definition.mounts()) {
    if (point.type() == "tmpfs") continue;
    mounts.push_back({.destination = point.destination(),
                      .type = "bind",
                      .source = point.source(),
                      .options = {"rbind", point.propagation(), point.rw() ? "rw" : "ro"}});
  }
  for (const v1::Mount& mount : config.mounts()) {
    if (mount.type() != "tmpfs") continue;
    mounts.push_back({.destination = mount.target(),
                      .type = "tmpfs",
                      .source = "tmpfs",
                      .options = TmpfsOptions(mount)});
  }
  const auto mounted_over = [&](absl::string_view path) {
    return std::any_of(mounts.begin(), mounts.end(),
                       [&](const oci::Mount& mount) { return mount.destination == path; });
  };
  const std::string directory = ContainerDirectory(places.state_directory, definition.id());
  for (const char* name : {"resolv.conf", "hostname", "hosts"}) {
    const std::string target = absl::StrCat("/etc/", name);
    if (mounted_over(target)) continue;
    mounts.push_back({.destination = target,
                      .type = "bind",
                      .source = absl::StrCat(directory, "/", name),
                      .options = {"rbind", "rprivate", config.read_only() ? "ro" : "rw"}});
  }
  if (config.init()) {
    mounts.push_back({.destination = kInitTarget,
                      .type = "bind",
                      .source = places.init_path,
                      .options = {"bind", "ro", "rprivate"}});
  }
  // What lies deeper comes later, or it would be hidden.
  std::stable_sort(mounts.begin(), mounts.end(), [](const oci::Mount& a, const oci::Mount& b) {
    return Depth(a.destination) < Depth(b.destination);
  });
  for (oci::Mount& mount : mounts) {
    RemoveMount(spec, mount.destination);
    spec.mounts.push_back(std::move(mount));
  }
}

absl::Status SetResources(const v1::ContainerConfig& config, oci::Resources& resources) {
  const v1::Resources& asked = config.resources();
  if (asked.memory_bytes() != 0 || asked.memory_reservation_bytes() != 0 ||
      asked.memory_swap_bytes() != 0 || asked.has_memory_swappiness() ||
      config.oom_kill_disable()) {
    oci::MemoryResources& memory = resources.memory.emplace();
    if (asked.memory_bytes() != 0) {
      memory.limit = asked.memory_bytes();
      memory.swap =
          asked.memory_swap_bytes() != 0 ? asked.memory_swap_bytes() : 2 * asked.memory_bytes();
    } else if (asked.memory_swap_bytes() != 0) {
      memory.swap = asked.memory_swap_bytes();
    }
    if (asked.memory_reservation_bytes() != 0) {
      memory.reservation = asked.memory_reservation_bytes();
    }
    if (asked.has_memory_swappiness() && asked.memory_swappiness() >= 0) {
      memory.swappiness = static_cast<uint64_t>(asked.memory_swappiness());
    }
    if (config.oom_kill_disable()) memory.disable_oom_killer = true;
  }
  if (asked.nano_cpus() != 0 || asked.cpu_shares() != 0 || asked.cpu_quota() != 0 ||
      asked.cpu_period() != 0 || !asked.cpuset_cpus().empty() || !asked.cpuset_mems().empty()) {
    oci::CpuResources& cpu = resources.cpu.emplace();
    if (asked.nano_cpus() != 0) {
      const int64_t online = ::sysconf(_SC_NPROCESSORS_ONLN);
      if (asked.nano_cpus() > online * 1000000000) {
        return Invalid(absl::StrCat("range of CPUs is from 0.01 to ", online,
                                    ".00, as there are only ", online, " CPUs available"));
      }
      cpu.period = kCpuPeriodMicroseconds;
      cpu.quota = std::max<int64_t>(asked.nano_cpus() / 10000, 1000);
    }
    if (asked.cpu_period() != 0) cpu.period = asked.cpu_period();
    if (asked.cpu_quota() != 0) cpu.quota = asked.cpu_quota();
    if (asked.cpu_shares() != 0) cpu.shares = asked.cpu_shares();
    cpu.cpus = asked.cpuset_cpus();
    cpu.mems = asked.cpuset_mems();
  }
  if (asked.pids_limit() != 0) resources.pids_limit = asked.pids_limit();
  if (asked.blkio_weight() != 0) {
    resources.block_io.emplace().weight = static_cast<uint16_t>(asked.blkio_weight());
  }
  return absl::OkStatus();
}

absl::StatusOr<oci::DeviceRule> ParseDeviceRule(absl::string_view text) {
  const auto wrong = [&] {
    return absl::InvalidArgumentError(absl::StrCat("invalid device cgroup rule '", text,
                                                   "': it must be 'TYPE MAJOR:MINOR ACCESS'"));
  };
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ' ');
  if (parts.size() != 3 || (parts[0] != "a" && parts[0] != "b" && parts[0] != "c")) return wrong();
  const std::vector<absl::string_view> numbers = absl::StrSplit(parts[1], ':');
  if (numbers.size() != 2) return wrong();
  oci::DeviceRule rule{
      .allow = true, .type = std::string(parts[0]), .access = std::string(parts[2])};
  const auto number = [](absl::string_view word, std::optional<int64_t>* out) {
    if (word == "*") return true;
    int64_t value = 0;
    if (!absl::SimpleAtoi(word, &value) || value < 0) return false;
    *out = value;
    return true;
  };
  if (!number(numbers[0], &rule.major) || !number(numbers[1], &rule.minor)) return wrong();
  if (rule.access.empty() || rule.access.find_first_not_of("rwm") != std::string::npos) {
    return wrong();
  }
  return rule;
}

// One node of the host, and what the container may do with it.
void AddDevice(const struct stat& info, const std::string& path, const std::string& access,
               oci::Spec& spec) {
  oci::Device device;
  device.type = S_ISBLK(info.st_mode) ? "b" : "c";
  device.path = path;
  device.major = major(info.st_rdev);
  device.minor = minor(info.st_rdev);
  device.file_mode = info.st_mode & 07777;
  device.uid = info.st_uid;
  device.gid = info.st_gid;
  spec.linux_.resources->devices.push_back({.allow = true,
                                            .type = device.type,
                                            .major = device.major,
                                            .minor = device.minor,
                                            .access = access});
  spec.linux_.devices.push_back(std::move(device));
}

// All device nodes below a directory of the host. Links are not followed.
absl::Status AddDevicesBelow(const std::string& host, const std::string& target,
                             const std::string& access, int depth, oci::Spec& spec) {
  ASSIGN_OR_RETURN(std::vector<std::string> names, sys::ListDirectory(host));
  for (const std::string& name : names) {
    struct stat info = {};
    const std::string path = absl::StrCat(host, "/", name);
    if (::lstat(path.c_str(), &info) != 0) continue;  // Gone since.
    const std::string inside = absl::StrCat(target, "/", name);
    if (S_ISDIR(info.st_mode) && depth > 0) {
      // The container has its own of these.
      if (host == "/dev" && (name == "pts" || name == "shm" || name == "mqueue" || name == "fd")) {
        continue;
      }
      RETURN_IF_ERROR(AddDevicesBelow(path, inside, access, depth - 1, spec));
    } else if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
      if (host == "/dev" && (name == "console" || name == "ptmx")) continue;
      AddDevice(info, inside, access, spec);
    }
  }
  return absl::OkStatus();
}

absl::Status AddDevices(const v1::ContainerConfig& config, oci::Spec& spec) {
  if (config.privileged()) {
    RETURN_IF_ERROR(AddDevicesBelow("/dev", "/dev", "rwm", 3, spec));
    spec.linux_.resources->devices = {{.allow = true, .access = "rwm"}};
    return absl::OkStatus();
  }
  for (const v1::Device& device : config.devices()) {
    const std::string target =
        device.container_path().empty() ? device.host_path() : device.container_path();
    const std::string access = device.permissions().empty() ? "rwm" : device.permissions();
    if (access.find_first_not_of("rwm") != std::string::npos) {
      return Invalid(absl::StrCat("invalid device mode '", access, "': it is made of r, w and m"));
    }
    struct stat info = {};
    // A link is followed, as people name devices by links (/dev/disk/by-id).
    if (::stat(device.host_path().c_str(), &info) != 0) {
      return sys::ErrnoError(errno, absl::StrCat("add the device '", device.host_path(), "'"));
    }
    if (S_ISDIR(info.st_mode)) {
      RETURN_IF_ERROR(AddDevicesBelow(device.host_path(), target, access, 3, spec));
    } else if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
      AddDevice(info, target, access, spec);
    } else {
      return Invalid(absl::StrCat("cannot add the device '", device.host_path(),
                                  "': it is not a device node"));
    }
  }
  for (const std::string& text : config.device_cgroup_rules()) {
    ASSIGN_OR_RETURN(oci::DeviceRule rule, ParseDeviceRule(text));
    spec.linux_.resources->devices.push_back(std::move(rule));
  }
  return absl::OkStatus();
}

absl::Status SetUlimits(const v1::ContainerConfig& config, oci::Process& process) {
  static const auto* const known = new std::set<std::string>{
      "as",   "core",   "cpu",   "data", "fsize",  "locks",  "memlock",    "msgqueue",
      "nice", "nofile", "nproc", "rss",  "rtprio", "rttime", "sigpending", "stack"};
  for (const v1::Ulimit& ulimit : config.ulimits()) {
    if (known->count(ulimit.name()) == 0) {
      return Invalid(absl::StrCat("invalid ulimit type: ", ulimit.name()));
    }
    const auto value = [](int64_t number) {
      return number < 0 ? ~uint64_t{0} : static_cast<uint64_t>(number);
    };
    const uint64_t soft = value(ulimit.soft());
    const uint64_t hard = value(ulimit.hard());
    if (soft > hard) {
      return Invalid(absl::StrCat("ulimit soft limit must be less than or equal to hard limit: ",
                                  ulimit.name(), " ", ulimit.soft(), " > ", ulimit.hard()));
    }
    process.rlimits.push_back(
        {absl::StrCat("RLIMIT_", absl::AsciiStrToUpper(ulimit.name())), soft, hard});
  }
  return absl::OkStatus();
}

// Only what belongs to a namespace the container has for itself (SECURITY-RULES 22).
absl::Status SetSysctls(const v1::ContainerConfig& config, oci::Spec& spec) {
  static const auto* const ipc = new std::set<std::string>{
      "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
      "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"};
  const bool own_ipc = config.ipc_mode() != "host" && SharedContainer(config.ipc_mode()).empty();
  const bool own_network = config.network() != "host" && SharedContainer(config.network()).empty();
  for (const auto& [name, value] : config.sysctls()) {
    const bool grammar =
        !name.empty() && name.size() <= 256 && std::all_of(name.begin(), name.end(), [](char c) {
          return absl::ascii_islower(static_cast<unsigned char>(c)) ||
                 absl::ascii_isdigit(static_cast<unsigned char>(c)) || c == '_' || c == '.' ||
                 c == '-';
        });
    if (!grammar || absl::StrContains(name, "..") || absl::StrContains(value, "\n") ||
        value.size() > 1024) {
      return Invalid(absl::StrCat("invalid sysctl '", name.substr(0, 64),
                                  "': a name of [a-z0-9_.-] and a value of one line"));
    }
    const bool of_ipc = ipc->count(name) > 0 || absl::StartsWith(name, "fs.mqueue.");
    const bool of_network = absl::StartsWith(name, "net.");
    if (!of_ipc && !of_network) {
      return Invalid(
          absl::StrCat("sysctl '", name, "' is not separate for a container and cannot be set"));
    }
    if (of_ipc && !own_ipc) {
      return Invalid(absl::StrCat("sysctl '", name,
                                  "' cannot be set: the IPC namespace is not the container's own"));
    }
    if (of_network && !own_network) {
      return Invalid(absl::StrCat(
          "sysctl '", name, "' cannot be set: the network namespace is not the container's own"));
    }
    spec.linux_.sysctl[name] = value;
  }
  return absl::OkStatus();
}

void SetEnvironmentOf(const v1::ContainerDefinition& definition, const std::string& hostname,
                      const ResolvedUser& user, oci::Process& process) {
  const v1::ContainerConfig& config = definition.config();
  std::vector<std::string> environment;
  SetEnvironment(environment, "PATH", kDefaultPath);
  SetEnvironment(environment, "HOSTNAME", hostname);
  if (config.tty()) SetEnvironment(environment, "TERM", "xterm");
  for (const std::string& entry : config.env()) {
    const size_t equals = entry.find('=');
    SetEnvironment(environment, entry.substr(0, equals), entry.substr(equals + 1));
  }
  if (!HasEnvironment(environment, "HOME")) SetEnvironment(environment, "HOME", user.home);
  process.env = std::move(environment);
}

void SetUser(const ResolvedUser& user, oci::Process& process) {
  process.user.uid = user.uid;
  process.user.gid = user.gid;
  process.user.additional_gids = user.groups;
}

// A process of another user than root gets nothing beyond the bounding set, as after an exec.
void SetCapabilities(const std::vector<std::string>& names, uint32_t uid, oci::Process& process) {
  oci::Capabilities& capabilities = process.capabilities.emplace();
  capabilities.bounding = names;
  if (uid == 0) capabilities.permitted = capabilities.effective = names;
}

std::string HostnameOf(const v1::ContainerDefinition& definition) {
  const v1::ContainerConfig& config = definition.config();
  if (!config.hostname().empty()) return config.hostname();
  if (config.network() == "host" || config.uts_mode() == "host") {
    char name[256] = {};
    if (::gethostname(name, sizeof name - 1) == 0) return name;
  }
  return definition.id().substr(0, 12);
}

}  // namespace

std::string ContainerDirectory(const std::string& base, const std::string& id) {
  return absl::StrCat(base, "/containers/", id);
}

std::string NamespaceLink(const HostPlaces& places, const std::string& id,
                          const std::string& kind) {
  return absl::StrCat(ContainerDirectory(places.runtime_directory, id), "/", kind);
}

absl::StatusOr<oci::Spec> BuildSpec(const v1::ContainerDefinition& definition,
                                    const ResolvedUser& user, const HostPlaces& places,
                                    std::vector<std::string>* warnings) {
  const v1::ContainerConfig& config = definition.config();
  ASSIGN_OR_RETURN(Security security, ParseSecurity(config, warnings));
  ASSIGN_OR_RETURN(std::vector<std::string> capabilities, EffectiveCapabilities(config));

  static const auto* const kDefaults = new oci::Spec(oci::DefaultSpec());
  oci::Spec spec = *kDefaults;
  oci::Process& process = *spec.process;
  const std::string hostname = HostnameOf(definition);
  process.terminal = config.tty();
  process.args.assign(definition.args().begin(), definition.args().end());
  if (config.init()) {
    if (places.init_path.empty()) {
      return absl::FailedPreconditionError(
          "--init needs the program gantry-init beside gantry-engine; install it");
    }
    process.args.insert(process.args.begin(), {kInitTarget, "--"});
  }
  process.cwd = config.working_dir().empty() ? "/" : config.working_dir();
  SetEnvironmentOf(definition, hostname, user, process);
  SetUser(user, process);
  SetCapabilities(capabilities, user.uid, process);
  process.no_new_privileges = security.no_new_privileges;
  process.apparmor_profile = config.privileged() ? "" : security.apparmor;
  process.oom_score_adj = config.oom_score_adj();
  RETURN_IF_ERROR(SetUlimits(config, process));

  spec.root->readonly = config.read_only();
  if (config.uts_mode() != "host") {
    spec.hostname = hostname;
    spec.domainname = config.domainname();
  }
  SetNamespaces(config, definition.id(), places, spec);
  SetShmSize(config, spec);
  AddMounts(definition, places, spec);
  RETURN_IF_ERROR(SetResources(config, *spec.linux_.resources));
  RETURN_IF_ERROR(AddDevices(config, spec));
  RETURN_IF_ERROR(SetSysctls(config, spec));
  spec.linux_.cgroups_path =
      absl::StrCat(config.cgroup_parent().empty() ? places.cgroup_parent : config.cgroup_parent(),
                   "/", definition.id());
  if (!absl::StartsWith(spec.linux_.cgroups_path, "/")) {
    spec.linux_.cgroups_path.insert(0, "/");
  }

  if (config.privileged() || security.seccomp_unconfined) {
    spec.linux_.seccomp.reset();
  } else if (!security.seccomp_json.empty()) {
    ASSIGN_OR_RETURN(spec.linux_.seccomp, ParseSeccompProfile(security.seccomp_json, capabilities));
  } else if (capabilities != oci::DefaultCapabilities()) {
    spec.linux_.seccomp = oci::DefaultSeccomp(capabilities);
  }
  if (config.privileged() || security.system_paths_unconfined) {
    spec.linux_.masked_paths.clear();
    spec.linux_.readonly_paths.clear();
  }
  if (config.privileged()) {
    for (const char* path : {"/sys", "/sys/fs/cgroup"}) {
      if (oci::Mount* mount = FindMount(spec, path)) {
        auto& options = mount->options;
        options.erase(std::remove(options.begin(), options.end(), "ro"), options.end());
      }
    }
  }
  for (const auto& [key, value] : config.annotations()) spec.annotations[key] = value;
  RETURN_IF_ERROR(oci::CheckSpec(spec));
  return spec;
}

absl::StatusOr<oci::Process> BuildExecProcess(const v1::ContainerDefinition& definition,
                                              const v1::ExecRequest& request,
                                              const ResolvedUser& user) {
  const v1::ContainerConfig& config = definition.config();
  if (request.command().empty() || request.command(0).empty()) {
    return absl::InvalidArgumentError("no command specified: name a program to run");
  }
  oci::Process process;
  process.terminal = request.tty();
  process.args.assign(request.command().begin(), request.command().end());
  process.cwd = request.working_dir();
  if (process.cwd.empty()) process.cwd = config.working_dir();
  if (process.cwd.empty()) process.cwd = "/";
  if (process.cwd[0] != '/') {
    return absl::InvalidArgumentError(absl::StrCat(
        "the working directory '", process.cwd, "' is invalid, it needs to be an absolute path"));
  }
  SetEnvironmentOf(definition, HostnameOf(definition), user, process);
  if (request.tty()) SetEnvironment(process.env, "TERM", "xterm");
  for (const std::string& entry : request.env()) {
    const size_t equals = entry.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(
          "invalid environment variable '", entry.substr(0, equals), "': it must be NAME=value"));
    }
    SetEnvironment(process.env, entry.substr(0, equals), entry.substr(equals + 1));
  }
  SetUser(user, process);
  std::vector<std::string> capabilities;
  if (request.privileged()) {
    capabilities = oci::AllCapabilities();
  } else {
    ASSIGN_OR_RETURN(capabilities, EffectiveCapabilities(config));
  }
  SetCapabilities(capabilities, user.uid, process);
  std::vector<std::string> ignored;
  ASSIGN_OR_RETURN(Security security, ParseSecurity(config, &ignored));
  process.no_new_privileges = security.no_new_privileges;
  process.oom_score_adj = config.oom_score_adj();
  RETURN_IF_ERROR(SetUlimits(config, process));
  RETURN_IF_ERROR(oci::CheckProcess(process, "exec"));
  return process;
}

}  // namespace gantry::engine
