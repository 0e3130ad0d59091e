// The OCI configuration of a container, from what was asked for. Pure apart from looking at
// devices.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/engine/v1/record.pb.h"
#include "lib/oci/spec.h"
#include "services/engine/user_database.h"

namespace gantry::engine {

// Places on the host the configuration points to.
struct HostPlaces {
  std::string
      state_directory;  // Host-made files: <id>-directory with hosts, resolv.conf, hostname.
  std::string runtime_directory;  // Links to namespaces: netns, ns-pid, ns-ipc.
  std::string cgroup_parent;      // "/gantry"
  std::string init_path;          // A static init for `init`; empty: there is none.
};

// Directory of one container below the state or the runtime directory.
std::string ContainerDirectory(const std::string& base, const std::string& id);

// Where a joined namespace ("netns", "pid", "ipc") or the shared memory of another container
// ("shm") is found. The path is in the configuration and never changes; each start points it to the
// namespace of that start.
std::string NamespaceLink(const HostPlaces& places, const std::string& id, const std::string& kind);

// The tmpfs, mounted on the host, that a container of the IPC mode "shareable" has as /dev/shm, so
// that others can join it; and the size of any container's /dev/shm.
std::string SharedMemoryDirectory(const HostPlaces& places, const std::string& id);
uint64_t SharedMemoryBytes(const v1::ContainerConfig& config);

// What the container calls itself.
std::string HostnameOf(const v1::ContainerDefinition& definition);

// `user` is the resolved one. Errors: InvalidArgument — an option that cannot work, named; NotFound
// — a device of the host is missing; FailedPrecondition — the machine lacks something.
absl::StatusOr<oci::Spec> BuildSpec(const v1::ContainerDefinition& definition,
                                    const ResolvedUser& user, const HostPlaces& places,
                                    std::vector<std::string>* warnings);

// The process object of an exec in a container with this definition.
absl::StatusOr<oci::Process> BuildExecProcess(const v1::ContainerDefinition& definition,
                                              const v1::ExecRequest& request,
                                              const ResolvedUser& user);

// A seccomp profile in Docker's form (archMap, includes, excludes) or the runtime specification's.
// Errors: InvalidArgument, with the path of the wrong key.
absl::StatusOr<oci::Seccomp> ParseSeccompProfile(absl::string_view json,
                                                 const std::vector<std::string>& capabilities);

}  // namespace gantry::engine
