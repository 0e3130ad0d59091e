// The capability sets of the calling process, as bit masks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/oci/spec.h"

namespace gantry::runtime {

struct CapabilitySets {
  uint64_t effective = 0, permitted = 0, inheritable = 0;
};

absl::StatusOr<CapabilitySets> GetCapabilities();
absl::Status PutCapabilities(const CapabilitySets& sets);

// Drops everything from the bounding set that is not in `kept`. Needs CAP_SETPCAP, unless there is
// nothing to drop.
absl::Status LimitBoundingSet(const std::vector<std::string>& kept);

// All sets as `asked` says, absent meaning none, and reads them back. What this process does not
// have it cannot give: a machine whose root lacks a capability runs containers without it.
absl::Status SetCapabilities(const std::optional<oci::Capabilities>& asked);

}  // namespace gantry::runtime
