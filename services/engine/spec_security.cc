// Parts of the OCI configuration: security options, capabilities, kernel parameters.
#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "services/engine/container_config.h"
#include "services/engine/spec_parts.h"

namespace gantry::engine {
namespace {

absl::Status Invalid(absl::string_view what) { return absl::InvalidArgumentError(what); }

}  // namespace

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

}  // namespace gantry::engine
