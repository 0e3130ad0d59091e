#include <algorithm>

#include "lib/oci/spec.h"

namespace gantry::oci {
namespace {

std::vector<Mount> StandardMounts() {
  return {
      {.destination = "/proc",
       .type = "proc",
       .source = "proc",
       .options = {"nosuid", "noexec", "nodev"}},
      {.destination = "/dev",
       .type = "tmpfs",
       .source = "tmpfs",
       .options = {"nosuid", "strictatime", "mode=755", "size=65536k"}},
      {.destination = "/dev/pts",
       .type = "devpts",
       .source = "devpts",
       .options = {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
      {.destination = "/sys",
       .type = "sysfs",
       .source = "sysfs",
       .options = {"nosuid", "noexec", "nodev", "ro"}},
      {.destination = "/sys/fs/cgroup",
       .type = "cgroup",
       .source = "cgroup",
       .options = {"ro", "nosuid", "noexec", "nodev"}},
      {.destination = "/dev/mqueue",
       .type = "mqueue",
       .source = "mqueue",
       .options = {"nosuid", "noexec", "nodev"}},
      {.destination = "/dev/shm",
       .type = "tmpfs",
       .source = "shm",
       .options = {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
  };
}

std::vector<DeviceRule> DockerDeviceRules() {
  const auto device = [](const char* type, std::optional<int64_t> major,
                         std::optional<int64_t> minor, const char* access) {
    return DeviceRule{
        .allow = true, .type = type, .major = major, .minor = minor, .access = access};
  };
  std::vector<DeviceRule> rules = {DeviceRule{.allow = false, .access = "rwm"}};
  rules.push_back(device("c", 1, 3, "rwm"));     // null
  rules.push_back(device("c", 1, 5, "rwm"));     // zero
  rules.push_back(device("c", 1, 7, "rwm"));     // full
  rules.push_back(device("c", 1, 8, "rwm"));     // random
  rules.push_back(device("c", 1, 9, "rwm"));     // urandom
  rules.push_back(device("c", 5, 0, "rwm"));     // tty
  rules.push_back(device("c", 5, 1, "rwm"));     // console
  rules.push_back(device("c", 5, 2, "rwm"));     // ptmx
  rules.push_back(device("c", 136, {}, "rwm"));  // pts
  rules.push_back(device("c", {}, {}, "m"));
  rules.push_back(device("b", {}, {}, "m"));
  return rules;
}

}  // namespace

const Namespace* Linux::FindNamespace(absl::string_view type) const {
  auto found = std::find_if(namespaces.begin(), namespaces.end(),
                            [&](const Namespace& ns) { return ns.type == type; });
  return found == namespaces.end() ? nullptr : &*found;
}

Namespace* Linux::FindNamespace(absl::string_view type) {
  return const_cast<Namespace*>(static_cast<const Linux*>(this)->FindNamespace(type));
}

const std::vector<std::string>& DefaultCapabilities() {
  static const auto* names = new std::vector<std::string>{
      "CAP_CHOWN",   "CAP_DAC_OVERRIDE", "CAP_FSETID",           "CAP_FOWNER",
      "CAP_MKNOD",   "CAP_NET_RAW",      "CAP_SETGID",           "CAP_SETUID",
      "CAP_SETFCAP", "CAP_SETPCAP",      "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
      "CAP_KILL",    "CAP_AUDIT_WRITE"};
  return *names;
}

Spec DefaultSpec() {
  Spec spec;
  Process& process = spec.process.emplace();
  process.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
  Capabilities& capabilities = process.capabilities.emplace();
  capabilities.bounding = capabilities.permitted = capabilities.effective = DefaultCapabilities();
  process.oom_score_adj = 0;
  spec.root = Root{.path = "rootfs"};
  spec.mounts = StandardMounts();
  spec.linux_.namespaces = {{"mount"}, {"network"}, {"uts"}, {"pid"}, {"ipc"}, {"cgroup"}};
  spec.linux_.resources.emplace().devices = DockerDeviceRules();
  spec.linux_.masked_paths = {
      "/proc/asound",     "/proc/acpi",        "/proc/interrupts",
      "/proc/kcore",      "/proc/keys",        "/proc/latency_stats",
      "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
      "/proc/scsi",       "/sys/firmware",     "/sys/devices/virtual/powercap"};
  spec.linux_.readonly_paths = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                "/proc/sysrq-trigger"};
  spec.linux_.seccomp = DefaultSeccomp(capabilities.bounding);
  return spec;
}

Spec ExampleSpec(bool rootless) {
  Spec spec;
  spec.oci_version = "1.2.1";
  Process& process = spec.process.emplace();
  process.terminal = true;
  process.args = {"sh"};
  process.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"};
  process.no_new_privileges = true;
  Capabilities& capabilities = process.capabilities.emplace();
  capabilities.bounding = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"};
  capabilities.permitted = capabilities.effective = capabilities.bounding;
  process.rlimits = {{.type = "RLIMIT_NOFILE", .soft = 1024, .hard = 1024}};
  spec.root = Root{.path = "rootfs", .readonly = true};
  spec.hostname = "gantry";
  spec.mounts = StandardMounts();
  spec.mounts[4].options.push_back("relatime");
  spec.linux_.namespaces = {{"pid"}, {"network"}, {"ipc"}, {"uts"}, {"mount"}, {"cgroup"}};
  spec.linux_.resources.emplace().devices = {DeviceRule{.allow = false, .access = "rwm"}};
  spec.linux_.masked_paths = {"/proc/acpi",        "/proc/asound",        "/proc/kcore",
                              "/proc/keys",        "/proc/latency_stats", "/proc/timer_list",
                              "/proc/timer_stats", "/proc/sched_debug",   "/sys/firmware",
                              "/proc/scsi"};
  spec.linux_.readonly_paths = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                "/proc/sysrq-trigger"};
  if (!rootless) return spec;
  // Without privileges there is no network namespace to configure and no sysfs of our own to mount.
  auto& namespaces = spec.linux_.namespaces;
  namespaces.erase(std::remove_if(namespaces.begin(), namespaces.end(),
                                  [](const Namespace& ns) { return ns.type == "network"; }),
                   namespaces.end());
  namespaces.push_back({"user"});
  spec.linux_.resources.reset();
  for (Mount& mount : spec.mounts) {
    if (mount.destination == "/sys") {
      mount = {.destination = "/sys",
               .type = "none",
               .source = "/sys",
               .options = {"rbind", "nosuid", "noexec", "nodev", "ro"}};
    }
    auto& options = mount.options;
    options.erase(std::remove(options.begin(), options.end(), "gid=5"), options.end());
  }
  auto& mounts = spec.mounts;
  mounts.erase(std::remove_if(mounts.begin(), mounts.end(),
                              [](const Mount& m) { return m.destination == "/sys/fs/cgroup"; }),
               mounts.end());
  return spec;
}

}  // namespace gantry::oci
