#include "ctl/container_flags.h"

#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "ctl/flag_values.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"
#include "lib/sys/file.h"

namespace gantry::ctl {
namespace {

using engine::v1::ContainerConfig;

absl::Status Invalid(absl::string_view flag, absl::string_view value, absl::string_view remedy) {
  return absl::InvalidArgumentError(
      absl::StrCat("invalid value '", EscapeForTerminal(value), "' of --", flag, ": ", remedy));
}

// A whole number of the range, if the flag was given.
template <typename Number>
absl::Status Read(const Arguments& arguments, absl::string_view flag, int64_t least, int64_t most,
                  const std::function<void(Number)>& set) {
  if (!arguments.Has(flag)) return absl::OkStatus();
  int64_t number;
  const std::string text = arguments.Text(flag);
  if (!absl::SimpleAtoi(text, &number) || number < least || number > most) {
    return Invalid(flag, text, absl::StrCat("use a number from ", least, " to ", most));
  }
  set(static_cast<Number>(number));
  return absl::OkStatus();
}

absl::Status ReadBytes(const Arguments& arguments, absl::string_view flag,
                       const std::function<void(int64_t)>& set) {
  if (!arguments.Has(flag)) return absl::OkStatus();
  ASSIGN_OR_RETURN(int64_t bytes,
                   Annotate(ParseBytes(arguments.Text(flag)), absl::StrCat("--", flag)));
  set(bytes);
  return absl::OkStatus();
}

// KEY=value flags into a map.
template <typename Map>
void ReadPairs(const Arguments& arguments, absl::string_view flag, Map* map) {
  for (const std::string& text : arguments.List(flag)) {
    auto [key, value] = SplitPair(text);
    (*map)[key] = value;
  }
}

template <typename Repeated>
void ReadList(const Arguments& arguments, absl::string_view flag, Repeated* list) {
  for (std::string& text : arguments.List(flag)) list->Add(std::move(text));
}

absl::Status BuildResources(const Arguments& arguments, engine::v1::Resources* resources) {
  RETURN_IF_ERROR(
      ReadBytes(arguments, "memory", [&](int64_t v) { resources->set_memory_bytes(v); }));
  RETURN_IF_ERROR(ReadBytes(arguments, "memory-reservation",
                            [&](int64_t v) { resources->set_memory_reservation_bytes(v); }));
  if (arguments.Text("memory-swap") == "-1") {
    resources->set_memory_swap_bytes(-1);
  } else {
    RETURN_IF_ERROR(ReadBytes(arguments, "memory-swap",
                              [&](int64_t v) { resources->set_memory_swap_bytes(v); }));
  }
  if (arguments.Has("cpus")) {
    if (arguments.Has("cpu-quota") || arguments.Has("cpu-period")) {
      return absl::InvalidArgumentError(
          "--cpus cannot be combined with --cpu-quota or --cpu-period");
    }
    ASSIGN_OR_RETURN(int64_t nano, ParseNanoCpus(arguments.Text("cpus")));
    resources->set_nano_cpus(nano);
  }
  RETURN_IF_ERROR(Read<uint64_t>(arguments, "cpu-shares", 0, 1 << 30,
                                 [&](uint64_t v) { resources->set_cpu_shares(v); }));
  RETURN_IF_ERROR(Read<int64_t>(arguments, "cpu-quota", -1, INT64_C(1) << 40,
                                [&](int64_t v) { resources->set_cpu_quota(v); }));
  RETURN_IF_ERROR(Read<uint64_t>(arguments, "cpu-period", 0, 1000000,
                                 [&](uint64_t v) { resources->set_cpu_period(v); }));
  RETURN_IF_ERROR(Read<int64_t>(arguments, "pids-limit", -1, 1 << 22,
                                [&](int64_t v) { resources->set_pids_limit(v); }));
  RETURN_IF_ERROR(Read<uint32_t>(arguments, "blkio-weight", 0, 1000,
                                 [&](uint32_t v) { resources->set_blkio_weight(v); }));
  RETURN_IF_ERROR(Read<int64_t>(arguments, "memory-swappiness", 0, 100,
                                [&](int64_t v) { resources->set_memory_swappiness(v); }));
  resources->set_cpuset_cpus(arguments.Text("cpuset-cpus"));
  resources->set_cpuset_mems(arguments.Text("cpuset-mems"));
  return absl::OkStatus();
}

// "/dev/sda:1mb" and "/dev/sda:100".
absl::Status ReadDeviceValues(
    const Arguments& arguments, absl::string_view flag, bool in_bytes,
    google::protobuf::RepeatedPtrField<engine::v1::BlockDeviceValue>* list) {
  for (const std::string& text : arguments.List(flag)) {
    const size_t colon = text.rfind(':');
    const absl::string_view number =
        absl::string_view(text).substr(colon == std::string::npos ? text.size() : colon + 1);
    int64_t value = 0;
    const bool read = in_bytes ? [&] {
      const absl::StatusOr<int64_t> bytes = ParseBytes(number);
      value = bytes.value_or(0);
      return bytes.ok();
    }() : absl::SimpleAtoi(number, &value);
    if (!absl::StartsWith(text, "/") || !read || value <= 0) {
      return Invalid(flag, text,
                     in_bytes ? "use a device and a rate, such as /dev/sda:10mb"
                              : "use a device and a number, such as /dev/sda:100");
    }
    engine::v1::BlockDeviceValue* device = list->Add();
    device->set_path(text.substr(0, colon));
    device->set_value(static_cast<uint64_t>(value));
  }
  return absl::OkStatus();
}

absl::Status BuildBlockIo(const Arguments& arguments, engine::v1::Resources* resources) {
  RETURN_IF_ERROR(ReadDeviceValues(arguments, "blkio-weight-device", false,
                                   resources->mutable_blkio_weight_devices()));
  RETURN_IF_ERROR(
      ReadDeviceValues(arguments, "device-read-bps", true, resources->mutable_blkio_read_bps()));
  RETURN_IF_ERROR(
      ReadDeviceValues(arguments, "device-write-bps", true, resources->mutable_blkio_write_bps()));
  RETURN_IF_ERROR(
      ReadDeviceValues(arguments, "device-read-iops", false, resources->mutable_blkio_read_iops()));
  return ReadDeviceValues(arguments, "device-write-iops", false,
                          resources->mutable_blkio_write_iops());
}

absl::Status BuildNetwork(const Arguments& arguments, ContainerConfig* config) {
  config->set_network(arguments.Text("network"));
  for (const std::string& text : arguments.List("publish")) {
    ASSIGN_OR_RETURN(std::vector<engine::v1::PortBinding> bindings, ParsePublish(text));
    for (engine::v1::PortBinding& binding : bindings) *config->add_ports() = std::move(binding);
  }
  config->set_publish_all(arguments.Is("publish-all"));
  for (const std::string& text : arguments.List("expose")) {
    // The grammar of a published port without a host's side; the engine wants "80/tcp".
    if (absl::StrContains(text, ':')) return Invalid("expose", text, "use port[/proto]");
    ASSIGN_OR_RETURN(std::vector<engine::v1::PortBinding> bindings, ParsePublish(text));
    for (const engine::v1::PortBinding& binding : bindings) {
      config->add_expose(absl::StrCat(binding.container_port(), "/", binding.protocol()));
    }
  }
  ReadList(arguments, "dns", config->mutable_dns());
  ReadList(arguments, "dns-search", config->mutable_dns_search());
  ReadList(arguments, "dns-option", config->mutable_dns_options());
  ReadList(arguments, "network-alias", config->mutable_network_aliases());
  for (std::string text : arguments.List("add-host")) {
    // Docker takes name=address too; the address may have colons, the name has none.
    const size_t separator = text.find_first_of(":=");
    if (separator == text.npos || separator == 0 || separator + 1 == text.size()) {
      return Invalid("add-host", text, "use name:address");
    }
    text[separator] = ':';
    config->add_extra_hosts(std::move(text));
  }
  config->set_ip(arguments.Text("ip"));
  config->set_mac_address(arguments.Text("mac-address"));
  return absl::OkStatus();
}

absl::Status BuildMounts(const Arguments& arguments, ContainerConfig* config) {
  for (const std::string& text : arguments.List("volume")) {
    ASSIGN_OR_RETURN(*config->add_mounts(), ParseVolume(text));
  }
  for (const std::string& text : arguments.List("mount")) {
    ASSIGN_OR_RETURN(*config->add_mounts(), ParseMount(text));
  }
  for (const std::string& text : arguments.List("tmpfs")) {
    ASSIGN_OR_RETURN(*config->add_mounts(), ParseTmpfs(text));
  }
  ReadList(arguments, "volumes-from", config->mutable_volumes_from());
  return ReadBytes(arguments, "shm-size",
                   [&](int64_t v) { config->set_shm_size_bytes(static_cast<uint64_t>(v)); });
}

// `seccomp=FILE` names a file of the caller: its content travels, since the engine may not see it.
absl::StatusOr<std::string> ResolveSecurityOption(const std::string& option) {
  absl::string_view value = option;
  if (!absl::ConsumePrefix(&value, "seccomp=") && !absl::ConsumePrefix(&value, "seccomp:")) {
    return option;
  }
  if (value == "unconfined" || value == "builtin" || absl::StartsWith(value, "{")) {
    return absl::StrCat("seccomp=", value);
  }
  ASSIGN_OR_RETURN(std::string profile, Annotate(sys::ReadFile(std::string(value), 1 << 20),
                                                 "read the seccomp profile"));
  RETURN_IF_ERROR(Annotate(json::Document::Parse(profile).status(),
                           absl::StrCat("seccomp profile '", value, "'")));
  return absl::StrCat("seccomp=", profile);
}

absl::Status BuildSecurity(const Arguments& arguments, ContainerConfig* config) {
  config->set_read_only(arguments.Is("read-only"));
  config->set_privileged(arguments.Is("privileged"));
  ReadList(arguments, "cap-add", config->mutable_cap_add());
  ReadList(arguments, "cap-drop", config->mutable_cap_drop());
  for (const std::string& option : arguments.List("security-opt")) {
    ASSIGN_OR_RETURN(*config->add_security_opt(), ResolveSecurityOption(option));
  }
  config->set_pid_mode(arguments.Text("pid"));
  config->set_ipc_mode(arguments.Text("ipc"));
  config->set_uts_mode(arguments.Text("uts"));
  config->set_cgroupns_mode(arguments.Text("cgroupns"));
  config->set_userns_mode(arguments.Text("userns"));
  for (const std::string& text : arguments.List("device")) {
    ASSIGN_OR_RETURN(*config->add_devices(), ParseDevice(text));
  }
  ReadList(arguments, "device-cgroup-rule", config->mutable_device_cgroup_rules());
  for (const std::string& text : arguments.List("ulimit")) {
    ASSIGN_OR_RETURN(*config->add_ulimits(), ParseUlimit(text));
  }
  ReadPairs(arguments, "sysctl", config->mutable_sysctls());
  config->set_oom_kill_disable(arguments.Is("oom-kill-disable"));
  return Read<int32_t>(arguments, "oom-score-adj", -1000, 1000,
                       [&](int32_t v) { config->set_oom_score_adj(v); });
}

absl::Status BuildLife(const Arguments& arguments, ContainerConfig* config) {
  config->set_stop_signal(arguments.Text("stop-signal"));
  if (arguments.Has("stop-timeout")) {
    ASSIGN_OR_RETURN(absl::Duration timeout, ParseSeconds(arguments.Text("stop-timeout")));
    config->mutable_stop_timeout()->set_seconds(absl::ToInt64Seconds(timeout));
  }
  config->set_auto_remove(arguments.Is("rm"));
  if (arguments.Has("restart")) {
    ASSIGN_OR_RETURN(*config->mutable_restart(), ParseRestart(arguments.Text("restart")));
    if (config->auto_remove() && config->restart().name() != "no") {
      return absl::InvalidArgumentError("--rm and --restart cannot be combined");
    }
  }
  config->set_init(arguments.Is("init"));
  config->set_runtime(arguments.Text("runtime"));
  config->set_cgroup_parent(arguments.Text("cgroup-parent"));
  config->mutable_log()->set_driver(arguments.Text("log-driver"));
  ReadPairs(arguments, "log-opt", config->mutable_log()->mutable_options());
  ReadPairs(arguments, "storage-opt", config->mutable_storage_options());
  ReadPairs(arguments, "annotation", config->mutable_annotations());
  for (const std::string& path : arguments.List("label-file")) {
    ASSIGN_OR_RETURN(std::vector<std::string> lines, ReadPairsFile(path));
    for (const std::string& line : lines) {
      auto [key, value] = SplitPair(line);
      (*config->mutable_labels())[key] = value;
    }
  }
  ReadPairs(arguments, "label", config->mutable_labels());
  return absl::OkStatus();
}

absl::Status BuildProgram(const Arguments& arguments, const EnvironmentLookup& environment,
                          ContainerConfig* config) {
  if (arguments.Has("entrypoint")) {
    config->set_entrypoint_set(true);
    const std::string entrypoint = arguments.Text("entrypoint");
    if (!entrypoint.empty()) config->add_entrypoint(entrypoint);
  }
  const std::vector<std::string>& words = arguments.positional();
  config->set_image(words.at(0));
  for (size_t i = 1; i < words.size(); ++i) config->add_command(words[i]);
  ASSIGN_OR_RETURN(std::vector<std::string> variables, BuildEnvironment(arguments, environment));
  for (std::string& variable : variables) config->add_env(std::move(variable));
  config->set_name(arguments.Text("name"));
  config->set_platform(arguments.Text("platform"));
  config->set_hostname(arguments.Text("hostname"));
  config->set_domainname(arguments.Text("domainname"));
  config->set_user(arguments.Text("user"));
  ReadList(arguments, "group-add", config->mutable_group_add());
  config->set_working_dir(arguments.Text("workdir"));
  config->set_tty(arguments.Is("tty"));
  config->set_open_stdin(arguments.Is("interactive"));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> BuildEnvironment(const Arguments& arguments,
                                                          const EnvironmentLookup& environment) {
  std::vector<std::string> given;
  for (const std::string& path : arguments.List("env-file")) {
    ASSIGN_OR_RETURN(std::vector<std::string> lines, ReadPairsFile(path));
    given.insert(given.end(), lines.begin(), lines.end());
  }
  for (std::string& text : arguments.List("env")) given.push_back(std::move(text));
  std::vector<std::string> variables;
  for (std::string& text : given) {
    const size_t equals = text.find('=');
    if (equals == 0 || text.empty()) return Invalid("env", text, "use NAME=value or NAME");
    if (equals != text.npos) {
      variables.push_back(std::move(text));
    } else if (std::optional<std::string> value = environment(text)) {
      variables.push_back(absl::StrCat(text, "=", *value));
    }
  }
  return variables;
}

absl::StatusOr<ContainerConfig> BuildConfig(const Arguments& arguments,
                                            const EnvironmentLookup& environment) {
  RETURN_IF_ERROR(RefusalOf(arguments));
  ContainerConfig config;
  RETURN_IF_ERROR(BuildProgram(arguments, environment, &config));
  RETURN_IF_ERROR(BuildNetwork(arguments, &config));
  RETURN_IF_ERROR(BuildMounts(arguments, &config));
  RETURN_IF_ERROR(BuildSecurity(arguments, &config));
  RETURN_IF_ERROR(BuildLife(arguments, &config));
  RETURN_IF_ERROR(BuildResources(arguments, config.mutable_resources()));
  RETURN_IF_ERROR(BuildBlockIo(arguments, config.mutable_resources()));
  return config;
}

}  // namespace gantry::ctl
