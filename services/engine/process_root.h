#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "lib/sys/unique_fd.h"

namespace gantry::engine {

// The root directory of a running process, to resolve paths in as it would (with openat2 only: the
// descriptor is ours, but what lies below belongs to the container). Errors: FailedPrecondition —
// it has ended.
absl::StatusOr<sys::UniqueFd> OpenProcessRoot(int64_t pid);

}  // namespace gantry::engine
