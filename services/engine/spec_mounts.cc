// Parts of the OCI configuration: namespaces and mounts.
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "lib/sys/file.h"
#include "services/engine/container_config.h"
#include "services/engine/spec_parts.h"

namespace gantry::engine {
namespace {

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

// The container's IPC namespace and its /dev/shm, which go together: POSIX shared memory is files.
// /dev/mqueue needs nothing: a fresh mount of it shows the queues of whatever namespace it is in.
void SetIpc(const v1::ContainerConfig& config, const std::string& id, const HostPlaces& places,
            oci::Spec& spec) {
  const auto bind_shm = [&](const std::string& source) {
    RemoveMount(spec, "/dev/shm");
    spec.mounts.push_back({.destination = "/dev/shm",
                           .type = "bind",
                           .source = source,
                           .options = {"rbind", "nosuid", "noexec", "nodev"}});
  };
  const std::string other(SharedContainer(config.ipc_mode()));
  if (config.ipc_mode() == "host") {
    RemoveNamespace(spec, "ipc");
    if (sys::Exists("/dev/shm")) bind_shm("/dev/shm");
  } else if (config.ipc_mode() == "none") {
    RemoveMount(spec, "/dev/shm");
  } else if (config.ipc_mode() == "shareable") {
    bind_shm(SharedMemoryDirectory(places, id));
  } else if (!other.empty()) {
    spec.linux_.FindNamespace("ipc")->path = NamespaceLink(places, id, "ipc");
    bind_shm(NamespaceLink(places, id, "shm"));
  }
}

}  // namespace

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
  SetIpc(config, id, places, spec);
}

void SetShmSize(const v1::ContainerConfig& config, oci::Spec& spec) {
  oci::Mount* shm = FindMount(spec, "/dev/shm");
  if (shm == nullptr || shm->type != "tmpfs") return;
  const uint64_t bytes = SharedMemoryBytes(config);
  for (std::string& option : shm->options) {
    if (absl::StartsWith(option, "size=")) option = absl::StrCat("size=", bytes);
  }
}

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

}  // namespace gantry::engine
