#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"

namespace gantry::runtime {

// A user namespace with these maps that nobody is in, for mount_setattr(MOUNT_ATTR_IDMAP).
absl::StatusOr<sys::UniqueFd> MakeUserNamespace(const std::vector<oci::IdMapping>& uids,
                                                const std::vector<oci::IdMapping>& gids);

}  // namespace gantry::runtime
