// Parts of the OCI configuration, each from what was asked for: inside of BuildSpec only.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/engine/v1/record.pb.h"
#include "lib/oci/spec.h"
#include "services/engine/spec_builder.h"

namespace gantry::engine {

// Where gantry-init appears in a container made with --init.
inline constexpr char kInitTarget[] = "/sbin/docker-init";

// --- spec_security.cc ---

// What `security_opt` says.
struct Security {
  bool no_new_privileges = false;
  bool seccomp_unconfined = false;
  bool system_paths_unconfined = false;
  std::string seccomp_json;
  std::string apparmor;
};

// Errors: InvalidArgument — an unknown option. What has no effect here is a warning.
absl::StatusOr<Security> ParseSecurity(const v1::ContainerConfig& config,
                                       std::vector<std::string>* warnings);

// The bounding set. Errors: InvalidArgument — an unknown capability.
absl::StatusOr<std::vector<std::string>> EffectiveCapabilities(const v1::ContainerConfig& config);

// Errors: InvalidArgument — not a sysctl of a namespace the container has for itself.
absl::Status SetSysctls(const v1::ContainerConfig& config, oci::Spec& spec);

// --- spec_mounts.cc ---

oci::Mount* FindMount(oci::Spec& spec, absl::string_view destination);

// Namespaces that are the host's or another container's, and the mounts that go with them.
void SetNamespaces(const v1::ContainerConfig& config, const std::string& id,
                   const HostPlaces& places, oci::Spec& spec);

// Gives /dev/shm the size that was asked for, when it is the container's own.
void SetShmSize(const v1::ContainerConfig& config, oci::Spec& spec);

// Volumes, binds, tmpfs, host-made files and the init.
void AddMounts(const v1::ContainerDefinition& definition, const HostPlaces& places,
               oci::Spec& spec);

// --- spec_devices.cc ---

// Nodes and rules. Errors: NotFound — no such device; InvalidArgument — not a device, or not a
// rule.
absl::Status AddDevices(const v1::ContainerConfig& config, oci::Spec& spec);

// All device nodes below a directory of the host, `depth` levels deep. Links are not followed. What
// vanishes between being listed and being looked at is left out: hosts unplug devices.
absl::Status AddDevicesBelow(const std::string& host, const std::string& target,
                             const std::string& access, int depth, oci::Spec& spec);

// --- spec_resources.cc ---

// Cgroup limits. Errors: InvalidArgument — out of this machine's range; NotFound — no such block
// device.
absl::Status SetResources(const v1::ContainerConfig& config, oci::Resources& resources);

// Errors: InvalidArgument — an unknown limit, or a soft one above the hard one.
absl::Status SetUlimits(const v1::ContainerConfig& config, oci::Process& process);

}  // namespace gantry::engine
