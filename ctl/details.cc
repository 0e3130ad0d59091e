#include "ctl/details.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ctl/names.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

using engine::v1::ContainerConfig;
using engine::v1::ContainerDetails;
using engine::v1::ContainerState;

// Docker's "never".
constexpr char kNoTime[] = "0001-01-01T00:00:00Z";

std::string TimeText(const google::protobuf::Timestamp& timestamp) {
  if (timestamp.seconds() == 0 && timestamp.nanos() == 0) return kNoTime;
  return FormatRfc3339Nano(ToTime(timestamp));
}

template <typename Repeated>
Value TextsOrNull(const Repeated& texts) {
  return texts.empty() ? Value() : Value::ListOf(texts);
}

// "80/tcp" → {} for every element, as Docker writes sets.
template <typename Repeated>
Value SetOf(const Repeated& texts) {
  Value set = Value::Object();
  for (const std::string& text : texts) set.Set(text, Value::Object());
  return set;
}

Value StateValue(const ContainerState& state) {
  const bool paused = state.status() == ContainerState::PAUSED;
  const bool restarting = state.status() == ContainerState::RESTARTING;
  Value value = Value::Object();
  return value.Set("Status", StateName(state.status()))
      .Set("Running", paused || state.status() == ContainerState::RUNNING || restarting)
      .Set("Paused", paused)
      .Set("Restarting", restarting)
      .Set("OOMKilled", state.oom_killed())
      .Set("Dead", state.status() == ContainerState::DEAD)
      .Set("Pid", state.pid())
      .Set("ExitCode", state.exit_code())
      .Set("Error", state.error())
      .Set("StartedAt", TimeText(state.started_at()))
      .Set("FinishedAt", TimeText(state.finished_at()));
}

// {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}, several hosts of one port together.
template <typename Repeated>
Value PortMap(const Repeated& ports, bool chosen) {
  std::map<std::string, Value> map;
  for (const engine::v1::PortBinding& port : ports) {
    Value& list = map[absl::StrCat(port.container_port(), "/", port.protocol())];
    // In what runs, a port without a host's side is exposed only: null.
    if (chosen && port.host_port() == 0) continue;
    if (!list.is_list()) list = Value::List();
    Value binding = Value::Object();
    binding.Set("HostIp", chosen && port.host_ip().empty() ? "0.0.0.0" : port.host_ip())
        .Set("HostPort", port.host_port() == 0 ? "" : absl::StrCat(port.host_port()));
    list.Add(binding);
  }
  Value value = Value::Object();
  for (auto& [port, bindings] : map) value.Set(port, bindings);
  return value;
}

std::string BindText(const engine::v1::Mount& mount) {
  return absl::StrCat(mount.source(), ":", mount.target(), mount.read_only() ? ":ro" : "");
}

Value BindsValue(const ContainerConfig& config) {
  std::vector<std::string> binds;
  for (const engine::v1::Mount& mount : config.mounts()) {
    if (mount.type() != "tmpfs" && !mount.source().empty()) binds.push_back(BindText(mount));
  }
  return TextsOrNull(binds);
}

Value TmpfsValue(const ContainerConfig& config) {
  Value tmpfs = Value::Object();
  for (const engine::v1::Mount& mount : config.mounts()) {
    if (mount.type() != "tmpfs") continue;
    std::string options = mount.read_only() ? "ro" : "";
    const auto add = [&](absl::string_view option) {
      absl::StrAppend(&options, options.empty() ? "" : ",", option);
    };
    if (mount.tmpfs_size_bytes() != 0) add(absl::StrCat("size=", mount.tmpfs_size_bytes()));
    for (const std::string& option : mount.options()) add(option);
    tmpfs.Set(mount.target(), options);
  }
  return tmpfs;
}

Value DevicesValue(const ContainerConfig& config) {
  Value devices = Value::List();
  for (const engine::v1::Device& device : config.devices()) {
    Value value = Value::Object();
    value.Set("PathOnHost", device.host_path())
        .Set("PathInContainer", device.container_path())
        .Set("CgroupPermissions", device.permissions());
    devices.Add(value);
  }
  return devices;
}

Value UlimitsValue(const ContainerConfig& config) {
  Value ulimits = Value::List();
  for (const engine::v1::Ulimit& ulimit : config.ulimits()) {
    Value value = Value::Object();
    value.Set("Name", ulimit.name()).Set("Hard", ulimit.hard()).Set("Soft", ulimit.soft());
    ulimits.Add(value);
  }
  return ulimits;
}

void SetResources(const engine::v1::Resources& resources, Value* value) {
  value->Set("CpuShares", resources.cpu_shares())
      .Set("Memory", resources.memory_bytes())
      .Set("NanoCpus", resources.nano_cpus())
      .Set("BlkioWeight", resources.blkio_weight())
      .Set("CpuPeriod", resources.cpu_period())
      .Set("CpuQuota", resources.cpu_quota())
      .Set("CpusetCpus", resources.cpuset_cpus())
      .Set("CpusetMems", resources.cpuset_mems())
      .Set("MemoryReservation", resources.memory_reservation_bytes())
      .Set("MemorySwap", resources.memory_swap_bytes())
      .Set("MemorySwappiness",
           resources.has_memory_swappiness() ? Value(resources.memory_swappiness()) : Value())
      .Set("PidsLimit", resources.pids_limit() != 0 ? Value(resources.pids_limit()) : Value());
}

Value HostConfigValue(const ContainerDetails& details) {
  const ContainerConfig& config = details.config();
  Value log = Value::Object();
  log.Set("Type", config.log().driver().empty() ? "json-file" : config.log().driver())
      .Set("Config", Value::MapOf(config.log().options()));
  Value restart = Value::Object();
  restart.Set("Name", config.restart().name().empty() ? "no" : config.restart().name())
      .Set("MaximumRetryCount", config.restart().maximum_retries());
  Value value = Value::Object();
  value.Set("Binds", BindsValue(config))
      .Set("LogConfig", log)
      .Set("NetworkMode", config.network().empty() ? "bridge" : config.network())
      .Set("PortBindings", PortMap(config.ports(), false))
      .Set("RestartPolicy", restart)
      .Set("AutoRemove", config.auto_remove())
      .Set("VolumesFrom", TextsOrNull(config.volumes_from()))
      .Set("CapAdd", TextsOrNull(config.cap_add()))
      .Set("CapDrop", TextsOrNull(config.cap_drop()))
      .Set("CgroupnsMode", config.cgroupns_mode().empty() ? "private" : config.cgroupns_mode())
      .Set("Dns", Value::ListOf(config.dns()))
      .Set("DnsOptions", Value::ListOf(config.dns_options()))
      .Set("DnsSearch", Value::ListOf(config.dns_search()))
      .Set("ExtraHosts", TextsOrNull(config.extra_hosts()))
      .Set("GroupAdd", TextsOrNull(config.group_add()))
      .Set("IpcMode", config.ipc_mode().empty() ? "private" : config.ipc_mode())
      .Set("OomScoreAdj", config.oom_score_adj())
      .Set("PidMode", config.pid_mode())
      .Set("Privileged", config.privileged())
      .Set("PublishAllPorts", config.publish_all())
      .Set("ReadonlyRootfs", config.read_only())
      .Set("SecurityOpt", TextsOrNull(config.security_opt()))
      .Set("StorageOpt", Value::MapOf(config.storage_options()))
      .Set("Tmpfs", TmpfsValue(config))
      .Set("UTSMode", config.uts_mode())
      .Set("UsernsMode", config.userns_mode())
      .Set("ShmSize", config.shm_size_bytes())
      .Set("Sysctls", Value::MapOf(config.sysctls()))
      .Set("Runtime", details.runtime())
      .Set("Init", config.init())
      .Set("CgroupParent", config.cgroup_parent())
      .Set("Devices", DevicesValue(config))
      .Set("DeviceCgroupRules", TextsOrNull(config.device_cgroup_rules()))
      .Set("Ulimits", UlimitsValue(config))
      .Set("OomKillDisable", config.oom_kill_disable())
      .Set("Annotations", Value::MapOf(config.annotations()));
  SetResources(config.resources(), &value);
  return value;
}

Value ConfigValue(const ContainerDetails& details) {
  const ContainerConfig& config = details.config();
  Value volumes = Value::Object();
  for (const engine::v1::Mount& mount : config.mounts()) {
    if (mount.type() == "volume") volumes.Set(mount.target(), Value::Object());
  }
  Value value = Value::Object();
  value.Set("Hostname", config.hostname().empty() ? details.id().substr(0, 12) : config.hostname())
      .Set("Domainname", config.domainname())
      .Set("User", config.user())
      .Set("AttachStdin", config.attach() && config.open_stdin())
      .Set("AttachStdout", config.attach())
      .Set("AttachStderr", config.attach())
      .Set("ExposedPorts", SetOf(config.expose()))
      .Set("Tty", config.tty())
      .Set("OpenStdin", config.open_stdin())
      .Set("StdinOnce", config.attach() && config.open_stdin())
      .Set("Env", Value::ListOf(config.env()))
      .Set("Cmd", TextsOrNull(config.command()))
      .Set("Image", FamiliarName(config.image()))
      .Set("Volumes", volumes.size() > 0 ? volumes : Value())
      .Set("WorkingDir", config.working_dir())
      .Set("Entrypoint", TextsOrNull(config.entrypoint()))
      .Set("Labels", Value::MapOf(config.labels()))
      .Set("StopSignal", config.stop_signal());
  if (config.has_stop_timeout()) value.Set("StopTimeout", config.stop_timeout().seconds());
  return value;
}

Value MountsValue(const ContainerDetails& details) {
  Value mounts = Value::List();
  for (const engine::v1::MountPoint& point : details.mount_points()) {
    Value value = Value::Object();
    value.Set("Type", point.type());
    if (!point.name().empty()) value.Set("Name", point.name());
    value.Set("Source", point.source()).Set("Destination", point.destination());
    if (!point.driver().empty()) value.Set("Driver", point.driver());
    value.Set("Mode", point.mode()).Set("RW", point.rw()).Set("Propagation", point.propagation());
    mounts.Add(value);
  }
  return mounts;
}

Value NetworkValue(const ContainerDetails& details) {
  const engine::v1::NetworkSettings& network = details.network();
  Value endpoint = Value::Object();
  endpoint.Set("IPAMConfig", Value())
      .Set("Links", Value())
      .Set("Aliases", TextsOrNull(details.config().network_aliases()))
      .Set("MacAddress", network.mac_address())
      .Set("NetworkID", network.network_id())
      .Set("EndpointID", network.endpoint_id())
      .Set("Gateway", network.gateway())
      .Set("IPAddress", network.ip_address())
      .Set("IPPrefixLen", network.ip_prefix_length());
  Value networks = Value::Object();
  if (!network.network().empty()) networks.Set(network.network(), endpoint);
  Value value = Value::Object();
  return value.Set("Bridge", network.bridge())
      .Set("SandboxID", "")
      .Set("SandboxKey", network.sandbox_key())
      .Set("Ports", PortMap(network.ports(), true))
      .Set("EndpointID", network.endpoint_id())
      .Set("Gateway", network.gateway())
      .Set("IPAddress", network.ip_address())
      .Set("IPPrefixLen", network.ip_prefix_length())
      .Set("MacAddress", network.mac_address())
      .Set("Networks", networks);
}

Value GraphDriverValue(const ContainerDetails& details) {
  Value data = Value::MapOf(details.graph_driver_data());
  Value value = Value::Object();
  return value.Set("Data", data).Set("Name", details.driver());
}

Value OwnValue(const ContainerDetails& details) {
  Value timings = Value::List();
  for (const engine::v1::StepTiming& timing : details.timings()) {
    Value step = Value::Object();
    step.Set("Step", timing.step())
        .Set("Microseconds", timing.microseconds())
        .Set("Depth", timing.depth());
    timings.Add(step);
  }
  Value value = Value::Object();
  return value.Set("StartTimings", timings);
}

}  // namespace

Value ContainerValue(const ContainerDetails& details, bool with_size) {
  Value value = Value::Object();
  value.Set("Id", details.id())
      .Set("Created", TimeText(details.created_at()))
      .Set("Path", details.path())
      .Set("Args", Value::ListOf(details.args()))
      .Set("State", StateValue(details.state()))
      .Set("Image", details.image_id())
      .Set("ResolvConfPath", details.resolv_conf_path())
      .Set("HostnamePath", details.hostname_path())
      .Set("HostsPath", details.hosts_path())
      .Set("LogPath", details.log_path())
      .Set("Name", absl::StrCat("/", details.name()))
      .Set("RestartCount", details.state().restart_count())
      .Set("Driver", details.driver())
      .Set("Platform", "linux")
      .Set("MountLabel", "")
      .Set("ProcessLabel", "")
      .Set("AppArmorProfile", "")
      .Set("ExecIDs", TextsOrNull(details.exec_ids()))
      .Set("HostConfig", HostConfigValue(details))
      .Set("GraphDriver", GraphDriverValue(details));
  if (with_size) {
    value.Set("SizeRw", details.size_rw_bytes()).Set("SizeRootFs", details.size_root_bytes());
  }
  return value.Set("Mounts", MountsValue(details))
      .Set("Config", ConfigValue(details))
      .Set("NetworkSettings", NetworkValue(details))
      .Set("Gantry", OwnValue(details));
}

Value ImageValue(const image::v1::ImageDetails& details) {
  const image::v1::ImageConfig& config = details.config();
  Value tags = Value::List();
  for (const std::string& name : details.names()) {
    if (!absl::StrContains(name, '@')) tags.Add(FamiliarName(name));
  }
  Value digests = Value::List();
  for (const std::string& digest : details.repo_digests()) digests.Add(FamiliarName(digest));
  Value image_config = Value::Object();
  image_config.Set("User", config.user())
      .Set("ExposedPorts", SetOf(config.exposed_ports()))
      .Set("Env", Value::ListOf(config.env()))
      .Set("Entrypoint", TextsOrNull(config.entrypoint()))
      .Set("Cmd", TextsOrNull(config.cmd()))
      .Set("Volumes", config.volumes().empty() ? Value() : SetOf(config.volumes()))
      .Set("WorkingDir", config.working_dir())
      .Set("Labels", Value::MapOf(config.labels()))
      .Set("StopSignal", config.stop_signal());
  Value root = Value::Object();
  root.Set("Type", "layers").Set("Layers", Value::ListOf(details.diff_ids()));
  Value descriptor = Value::Object();
  descriptor.Set("mediaType", details.target().media_type())
      .Set("digest", details.target().digest())
      .Set("size", details.target().size());
  Value own = Value::Object();
  own.Set("ChainId", details.chain_id()).Set("ManifestDigest", details.manifest().digest());
  Value value = Value::Object();
  value.Set("Id", details.id())
      .Set("RepoTags", tags)
      .Set("RepoDigests", digests)
      .Set("Parent", "")
      .Set("Comment", "")
      .Set("Created", TimeText(details.created_at()))
      .Set("Author", details.author())
      .Set("Config", image_config)
      .Set("Architecture", details.architecture());
  if (!details.variant().empty()) value.Set("Variant", details.variant());
  return value.Set("Os", details.os())
      .Set("Size", details.size_bytes())
      .Set("RootFS", root)
      .Set("Descriptor", descriptor)
      .Set("Gantry", own);
}

Value VolumeValue(const engine::v1::Volume& volume) {
  Value value = Value::Object();
  return value.Set("CreatedAt", TimeText(volume.created_at()))
      .Set("Driver", volume.driver().empty() ? "local" : volume.driver())
      .Set("Labels", Value::MapOf(volume.labels()))
      .Set("Mountpoint", volume.mountpoint())
      .Set("Name", volume.name())
      .Set("Options", Value())
      .Set("Scope", "local");
}

}  // namespace gantry::ctl
