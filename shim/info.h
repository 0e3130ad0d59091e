// `-info`: what this shim, and the runtime it would use, can do.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::shim {

// A containerd.types.RuntimeInfo. `input`: runtime options (an Any), or nothing. Options that name
// another OCI runtime give that one's features, or none when it cannot tell them.
//
// The annotation `containerd.io/runtime-allow-mounts` is left out: it claims mount types that a
// daemon would otherwise transform itself, and we take all mounts as the kernel knows them.
//
// Errors: InvalidArgument — the input is no Any.
// Source: contracts/containerd/shim-invocation.tsv.
absl::StatusOr<std::string> RuntimeInfo(absl::string_view input);

}  // namespace gantry::shim
