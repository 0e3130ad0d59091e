#include "services/engine/container_config.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/oci/spec.h"
#include "services/engine/network/network.h"

namespace gantry::engine {
namespace {

constexpr int64_t kMinMemoryBytes = 512 << 10;
constexpr size_t kMaxText = 4096;
constexpr size_t kMaxListBytes = 1 << 20;

absl::Status Invalid(absl::string_view field, absl::string_view value, absl::string_view rule) {
  return absl::InvalidArgumentError(absl::StrCat("invalid ", field, " '", value, "': ", rule));
}

bool HasControlByte(absl::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); });
}

absl::Status CheckAbsolute(absl::string_view field, absl::string_view path) {
  if (!absl::StartsWith(path, "/")) return Invalid(field, path, "it must be an absolute path");
  if (path.size() > kMaxText) return Invalid(field, path.substr(0, 40), "it is too long");
  if (path.find('\0') != absl::string_view::npos) return Invalid(field, "", "it has a zero byte");
  for (absl::string_view part : absl::StrSplit(path, '/')) {
    if (part == "..") return Invalid(field, path, "it must not contain '..'");
  }
  return absl::OkStatus();
}

absl::Status CheckHostName(absl::string_view field, absl::string_view name) {
  if (name.size() > 253) return Invalid(field, name, "it is longer than 253 bytes");
  for (char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '.' && c != '_') {
      return Invalid(field, name, "only letters, digits, '-', '_' and '.' are allowed");
    }
  }
  if (absl::StartsWith(name, "-") || absl::StartsWith(name, ".")) {
    return Invalid(field, name, "it must begin with a letter or digit");
  }
  return absl::OkStatus();
}

absl::Status CheckEnvironment(const v1::ContainerConfig& config) {
  size_t bytes = 0;
  for (const std::string& entry : config.env()) {
    bytes += entry.size();
    if (entry.empty() || entry[0] == '=' || entry.find('\0') != std::string::npos) {
      // The value may be a secret: only the name is shown (STYLE 10).
      return Invalid("environment variable", entry.substr(0, entry.find('=')),
                     "it must be NAME=value");
    }
  }
  if (bytes > kMaxListBytes) {
    return absl::InvalidArgumentError("the environment is larger than 1 MiB");
  }
  return absl::OkStatus();
}

absl::Status CheckRestart(const v1::ContainerConfig& config) {
  const std::string& name = config.restart().name();
  static const auto* const known =
      new std::set<std::string>{"", "no", "on-failure", "always", "unless-stopped"};
  if (known->count(name) == 0) {
    return Invalid("restart policy", name, "use no, on-failure[:N], always or unless-stopped");
  }
  if (config.restart().maximum_retries() != 0 && name != "on-failure") {
    return Invalid("restart policy", name, "a maximum of retries goes with on-failure only");
  }
  if (config.auto_remove() && !name.empty() && name != "no") {
    return absl::InvalidArgumentError(
        "conflicting options: cannot specify both --restart and --rm");
  }
  return absl::OkStatus();
}

absl::Status CheckNetwork(const v1::ContainerConfig& config) {
  const std::string& mode = config.network();
  if (absl::StartsWith(mode, "container:")) {
    if (SharedContainer(mode).empty()) return Invalid("network", mode, "name a container");
    if (config.ports_size() > 0 || config.publish_all()) {
      return absl::InvalidArgumentError(
          "conflicting options: ports cannot be published with the network of another container");
    }
    if (!config.hostname().empty()) {
      return absl::InvalidArgumentError(
          "conflicting options: hostname and the network of another container");
    }
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(network::ParseMode(mode).status());
  for (const v1::PortBinding& port : config.ports()) {
    if (port.container_port() == 0 || port.container_port() > 65535 || port.host_port() > 65535) {
      return absl::InvalidArgumentError(absl::StrCat("invalid published port ", port.host_port(),
                                                     ":", port.container_port(),
                                                     ": ports are 1 to 65535"));
    }
    RETURN_IF_ERROR(network::ParseProtocol(port.protocol()).status());
  }
  for (const std::string& exposed : config.expose()) {
    RETURN_IF_ERROR(ParseExposed(exposed).status());
  }
  for (const std::string& host : config.extra_hosts()) {
    const size_t colon = host.find(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == host.size() ||
        HasControlByte(host)) {
      return Invalid("extra host", host, "it must be name:address");
    }
  }
  for (const auto* list : {&config.dns(), &config.dns_search(), &config.dns_options()}) {
    for (const std::string& word : *list) {
      if (word.empty() || HasControlByte(word) || absl::StrContains(word, " ")) {
        return Invalid("DNS setting", word, "it must be one word");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckMounts(const v1::ContainerConfig& config) {
  std::set<std::string> targets;
  for (const v1::Mount& mount : config.mounts()) {
    RETURN_IF_ERROR(CheckAbsolute("mount target", mount.target()));
    const std::string target(absl::StripSuffix(mount.target(), "/"));
    if (target.empty()) {
      return Invalid("mount target", mount.target(), "the root directory cannot be mounted over");
    }
    if (!targets.insert(target).second) {
      return absl::InvalidArgumentError(absl::StrCat("Duplicate mount point: ", target));
    }
    if (mount.type() == "bind") {
      RETURN_IF_ERROR(CheckAbsolute("bind source", mount.source()));
    } else if (mount.type() == "volume") {
      if (!mount.source().empty()) RETURN_IF_ERROR(CheckName("volume name", mount.source()));
    } else if (mount.type() == "tmpfs") {
      if (!mount.source().empty()) {
        return Invalid("tmpfs source", mount.source(), "a tmpfs has no source");
      }
    } else {
      return Invalid("mount type", mount.type(), "use bind, volume or tmpfs");
    }
    static const auto* const propagations = new std::set<std::string>{
        "", "private", "rprivate", "shared", "rshared", "slave", "rslave"};
    if (propagations->count(mount.propagation()) == 0) {
      return Invalid("mount propagation", mount.propagation(),
                     "use private, shared or slave, or these with an r in front");
    }
    for (const std::string& option : mount.options()) {
      if (option.empty() || HasControlByte(option) || absl::StrContains(option, ",")) {
        return Invalid("mount option", option, "it must be one word");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckResources(const v1::ContainerConfig& config) {
  const v1::Resources& resources = config.resources();
  if (resources.memory_bytes() != 0 && resources.memory_bytes() < kMinMemoryBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "minimum memory limit allowed is 512 KiB, asked for ", resources.memory_bytes(), " bytes"));
  }
  if (resources.memory_swap_bytes() > 0) {
    if (resources.memory_bytes() == 0) {
      return absl::InvalidArgumentError(
          "a memory+swap limit needs a memory limit; set --memory too");
    }
    if (resources.memory_swap_bytes() < resources.memory_bytes()) {
      return absl::InvalidArgumentError(
          "minimum memoryswap limit should be larger than memory limit");
    }
  }
  if (resources.memory_swap_bytes() < -1 || resources.memory_reservation_bytes() < 0 ||
      resources.nano_cpus() < 0 || resources.pids_limit() < -1) {
    return absl::InvalidArgumentError("a resource limit is negative");
  }
  if (resources.memory_reservation_bytes() > resources.memory_bytes() &&
      resources.memory_bytes() != 0) {
    return absl::InvalidArgumentError(
        "minimum memory limit can not be less than memory reservation limit");
  }
  if (resources.nano_cpus() != 0 && (resources.cpu_quota() != 0 || resources.cpu_period() != 0)) {
    return absl::InvalidArgumentError(
        "conflicting options: --cpus and --cpu-quota or --cpu-period cannot both be set");
  }
  if (resources.blkio_weight() != 0 &&
      (resources.blkio_weight() < 10 || resources.blkio_weight() > 1000)) {
    return absl::InvalidArgumentError("range of blkio weight is from 10 to 1000");
  }
  if (resources.has_memory_swappiness() &&
      (resources.memory_swappiness() < -1 || resources.memory_swappiness() > 100)) {
    return absl::InvalidArgumentError("memory swappiness must be from 0 to 100");
  }
  if (config.oom_score_adj() < -1000 || config.oom_score_adj() > 1000) {
    return absl::InvalidArgumentError("OOM score adjustment must be from -1000 to 1000");
  }
  return absl::OkStatus();
}

absl::Status CheckBlockDevices(const v1::Resources& resources) {
  for (const v1::BlockDeviceValue& device : resources.blkio_weight_devices()) {
    if (device.value() < 10 || device.value() > 1000) {
      return absl::InvalidArgumentError("range of blkio weight is from 10 to 1000");
    }
  }
  for (const auto* list : {&resources.blkio_weight_devices(), &resources.blkio_read_bps(),
                           &resources.blkio_write_bps(), &resources.blkio_read_iops(),
                           &resources.blkio_write_iops()}) {
    for (const v1::BlockDeviceValue& device : *list) {
      RETURN_IF_ERROR(CheckAbsolute("block device", device.path()));
      if (device.value() == 0) {
        return Invalid("block device limit", device.path(), "the limit must be above zero");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckNamespaces(const v1::ContainerConfig& config) {
  struct Mode {
    const char* field;
    const std::string& value;
    std::set<std::string> allowed;
    bool container;
  };
  const Mode modes[] = {
      {"pid mode", config.pid_mode(), {"", "private", "host"}, true},
      {"ipc mode", config.ipc_mode(), {"", "private", "shareable", "host", "none"}, true},
      {"uts mode", config.uts_mode(), {"", "private", "host"}, false},
      {"cgroup namespace mode", config.cgroupns_mode(), {"", "private", "host"}, false},
      {"user namespace mode", config.userns_mode(), {"", "host"}, false},
  };
  for (const Mode& mode : modes) {
    if (mode.allowed.count(mode.value) > 0) continue;
    if (mode.container && !SharedContainer(mode.value).empty()) continue;
    return Invalid(
        mode.field, mode.value,
        absl::StrCat("use ", absl::StrJoin(++mode.allowed.begin(), mode.allowed.end(), ", "),
                     mode.container ? " or container:NAME" : ""));
  }
  if (config.uts_mode() == "host" && !config.hostname().empty()) {
    return absl::InvalidArgumentError("conflicting options: hostname and the UTS mode 'host'");
  }
  return absl::OkStatus();
}

absl::Status CheckLog(const v1::ContainerConfig& config) {
  const std::string& driver = config.log().driver();
  if (driver != "" && driver != "json-file" && driver != "none") {
    return Invalid("log driver", driver, "use json-file or none");
  }
  for (const auto& [key, value] : config.log().options()) {
    if (key != "max-size" && key != "max-file") {
      return Invalid("log option", key, "json-file knows max-size and max-file");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckName(absl::string_view field, absl::string_view name) {
  bool right = name.size() >= 2 && name.size() <= 128 &&
               absl::ascii_isalnum(static_cast<unsigned char>(name[0]));
  for (char c : name) {
    right &= absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
  }
  if (right) return absl::OkStatus();
  return Invalid(field, name,
                 "only [a-zA-Z0-9][a-zA-Z0-9_.-]+ are allowed, at most 128 characters");
}

absl::Status CheckConfig(const v1::ContainerConfig& config) {
  if (config.image().empty()) return absl::InvalidArgumentError("no image is named");
  if (!config.name().empty()) RETURN_IF_ERROR(CheckName("container name", config.name()));
  RETURN_IF_ERROR(CheckHostName("hostname", config.hostname()));
  RETURN_IF_ERROR(CheckHostName("domainname", config.domainname()));
  RETURN_IF_ERROR(CheckEnvironment(config));
  size_t label_bytes = 0;
  for (const auto& [key, value] : config.labels()) {
    RETURN_IF_ERROR(CheckLabel(key, value));
    label_bytes += key.size() + value.size();
  }
  if (label_bytes > kMaxListBytes) {
    return absl::InvalidArgumentError("the labels are larger than 1 MiB");
  }
  if (!config.working_dir().empty() && !absl::StartsWith(config.working_dir(), "/")) {
    return absl::InvalidArgumentError(
        absl::StrCat("the working directory '", config.working_dir(),
                     "' is invalid, it needs to be an absolute path"));
  }
  if (!config.stop_signal().empty()) {
    RETURN_IF_ERROR(oci::ParseSignal(config.stop_signal()).status());
  }
  if (config.has_stop_timeout() && config.stop_timeout().seconds() < -1) {
    return absl::InvalidArgumentError("the stop timeout is negative");
  }
  RETURN_IF_ERROR(CheckRestart(config));
  RETURN_IF_ERROR(CheckNetwork(config));
  RETURN_IF_ERROR(CheckMounts(config));
  RETURN_IF_ERROR(CheckResources(config));
  RETURN_IF_ERROR(CheckBlockDevices(config.resources()));
  RETURN_IF_ERROR(CheckNamespaces(config));
  RETURN_IF_ERROR(CheckLog(config));
  if (!config.storage_options().empty()) {
    return absl::UnimplementedError(
        "storage options are not supported by the overlay snapshotter; leave --storage-opt out");
  }
  if (config.network_aliases_size() > 0) {
    return absl::InvalidArgumentError(
        "network-scoped aliases are only supported for user-defined networks");
  }
  return absl::OkStatus();
}

v1::ContainerConfig CompleteConfig(const v1::ContainerConfig& config,
                                   const image::v1::ImageConfig& image) {
  v1::ContainerConfig completed = config;
  if (!config.entrypoint_set() && config.entrypoint().empty()) {
    *completed.mutable_entrypoint() = image.entrypoint();
    // A given entrypoint hides the image's command as well.
    if (config.command().empty()) *completed.mutable_command() = image.cmd();
  }

  std::vector<std::string> environment;
  for (const std::string& entry : image.env()) {
    const size_t equals = entry.find('=');
    if (equals == std::string::npos || equals == 0) continue;  // SECURITY-RULES 31.
    SetEnvironment(environment, entry.substr(0, equals), entry.substr(equals + 1));
  }
  for (const std::string& entry : config.env()) {
    const size_t equals = entry.find('=');
    if (equals != std::string::npos) {
      SetEnvironment(environment, entry.substr(0, equals), entry.substr(equals + 1));
      continue;
    }
    // A bare name takes the image's variable away.
    environment.erase(std::remove_if(environment.begin(), environment.end(),
                                     [&](const std::string& have) {
                                       return absl::StartsWith(have, absl::StrCat(entry, "="));
                                     }),
                      environment.end());
  }
  completed.clear_env();
  for (std::string& entry : environment) completed.add_env(std::move(entry));

  for (const auto& [key, value] : image.labels()) {
    // Labels of the suite itself are the host's to set (SECURITY-RULES 31).
    if (absl::StartsWith(key, "containerd.io/") || absl::StartsWith(key, "gantry.")) continue;
    completed.mutable_labels()->insert({key, value});
  }
  if (completed.user().empty()) completed.set_user(image.user());
  if (completed.working_dir().empty()) completed.set_working_dir(image.working_dir());
  if (completed.stop_signal().empty() && oci::ParseSignal(image.stop_signal()).ok()) {
    completed.set_stop_signal(image.stop_signal());
  }

  std::set<std::string> exposed(completed.expose().begin(), completed.expose().end());
  for (const std::string& port : image.exposed_ports()) {
    if (ParseExposed(port).ok()) exposed.insert(port);
  }
  completed.clear_expose();
  for (const std::string& port : exposed) completed.add_expose(port);

  std::set<std::string> targets;
  for (const v1::Mount& mount : completed.mounts()) {
    targets.insert(std::string(absl::StripSuffix(mount.target(), "/")));
  }
  for (const std::string& path : image.volumes()) {
    const std::string target(absl::StripSuffix(path, "/"));
    if (!CheckAbsolute("volume", target).ok() || !targets.insert(target).second) continue;
    v1::Mount* mount = completed.add_mounts();
    mount->set_type("volume");
    mount->set_target(target);
  }

  if (completed.network().empty() || completed.network() == "default") {
    completed.set_network("bridge");
  }
  if (completed.restart().name().empty()) completed.mutable_restart()->set_name("no");
  if (completed.log().driver().empty()) completed.mutable_log()->set_driver("json-file");
  return completed;
}

absl::StatusOr<std::vector<std::string>> CommandLine(const v1::ContainerConfig& completed) {
  std::vector<std::string> args(completed.entrypoint().begin(), completed.entrypoint().end());
  args.insert(args.end(), completed.command().begin(), completed.command().end());
  if (args.empty()) {
    return absl::InvalidArgumentError(
        "no command specified: the image has none, so name a program to run");
  }
  size_t bytes = 0;
  for (const std::string& arg : args) {
    bytes += arg.size();
    if (arg.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError("an argument of the command has a zero byte");
    }
  }
  if (args[0].empty()) return absl::InvalidArgumentError("the program to run is an empty string");
  if (bytes > kMaxListBytes) return absl::InvalidArgumentError("the command is larger than 1 MiB");
  return args;
}

void SetEnvironment(std::vector<std::string>& environment, absl::string_view name,
                    absl::string_view value) {
  const std::string prefix = absl::StrCat(name, "=");
  std::string entry = absl::StrCat(prefix, value);
  for (std::string& have : environment) {
    if (absl::StartsWith(have, prefix)) {
      have = std::move(entry);
      return;
    }
  }
  environment.push_back(std::move(entry));
}

bool HasEnvironment(const std::vector<std::string>& environment, absl::string_view name) {
  const std::string prefix = absl::StrCat(name, "=");
  return std::any_of(environment.begin(), environment.end(),
                     [&](const std::string& entry) { return absl::StartsWith(entry, prefix); });
}

absl::StatusOr<std::vector<std::pair<uint32_t, std::string>>> ParseExposed(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits('/', 1));
  ASSIGN_OR_RETURN(network::Protocol protocol, network::ParseProtocol(parts.second));
  const std::pair<absl::string_view, absl::string_view> range =
      absl::StrSplit(parts.first, absl::MaxSplits('-', 1));
  uint32_t first = 0;
  uint32_t last = 0;
  if (!absl::SimpleAtoi(range.first, &first) ||
      !absl::SimpleAtoi(range.second.empty() ? range.first : range.second, &last) || first == 0 ||
      last > 65535 || last < first) {
    return Invalid("exposed port", text, "it must be PORT[-PORT][/tcp|/udp]");
  }
  std::vector<std::pair<uint32_t, std::string>> ports;
  for (uint32_t port = first; port <= last; ++port) {
    ports.emplace_back(port, std::string(network::ProtocolName(protocol)));
  }
  return ports;
}

absl::string_view SharedContainer(absl::string_view mode) {
  return absl::ConsumePrefix(&mode, "container:") ? mode : absl::string_view();
}

}  // namespace gantry::engine
