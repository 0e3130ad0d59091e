#pragma once

#include <sys/types.h>

#include <vector>

#include "absl/status/status.h"
#include "lib/oci/spec.h"

namespace gantry::runtime {

// Gives the new user namespace of `pid` its maps: directly where this process may, a single own id
// after setgroups was denied, else by newuidmap(1) and newgidmap(1).
absl::Status WriteIdMaps(pid_t pid, const std::vector<oci::IdMapping>& uids,
                         const std::vector<oci::IdMapping>& gids);

// Whether this process is in a user namespace that is not the machine's first one.
bool InUserNamespace();

}  // namespace gantry::runtime
