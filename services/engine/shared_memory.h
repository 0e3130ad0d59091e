// The /dev/shm of a container whose IPC namespace others may join (--ipc shareable): a tmpfs on the
// host, below the container's runtime directory, bound into every container that shares it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace gantry::engine {

// Mounts it at `directory`, which is made; one that a run left there is taken away first.
// Errors: those of mount(2).
absl::Status MountSharedMemory(const std::string& directory, uint64_t bytes);

// Containers that have it bound keep it. No error when there is none.
absl::Status UnmountSharedMemory(const std::string& directory);

}  // namespace gantry::engine
