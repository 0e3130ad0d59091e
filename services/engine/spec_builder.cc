#include "services/engine/spec_builder.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "services/engine/container_config.h"
#include "services/engine/spec_parts.h"

namespace gantry::engine {
namespace {

constexpr uint64_t kDefaultShmBytes = 64 << 20;

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

}  // namespace

std::string HostnameOf(const v1::ContainerDefinition& definition) {
  const v1::ContainerConfig& config = definition.config();
  if (!config.hostname().empty()) return config.hostname();
  if (config.network() == "host" || config.uts_mode() == "host") {
    char name[256] = {};
    if (::gethostname(name, sizeof name - 1) == 0) return name;
  }
  return definition.id().substr(0, 12);
}

std::string ContainerDirectory(const std::string& base, const std::string& id) {
  return absl::StrCat(base, "/containers/", id);
}

std::string NamespaceLink(const HostPlaces& places, const std::string& id,
                          const std::string& kind) {
  return absl::StrCat(ContainerDirectory(places.runtime_directory, id), "/", kind);
}

std::string SharedMemoryDirectory(const HostPlaces& places, const std::string& id) {
  return absl::StrCat(ContainerDirectory(places.runtime_directory, id), "/shared-memory");
}

uint64_t SharedMemoryBytes(const v1::ContainerConfig& config) {
  return config.shm_size_bytes() == 0 ? kDefaultShmBytes : config.shm_size_bytes();
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
