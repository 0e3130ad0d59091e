// What the `start` command of a shim prints, in its three forms (contracts/containerd, 5.3).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::task {

struct ShimAnswer {
  int version = 2;      // Of the task API: 2 or 3.
  std::string address;  // "unix:///path"
};

// Plain text "unix://…" means version 2; JSON {version, address, protocol}; a serialized
// BootstrapResult. Errors: InvalidArgument — none of these; Unimplemented — a protocol or an
// address form that we do not dial.
absl::StatusOr<ShimAnswer> ParseShimAnswer(absl::string_view bytes);

}  // namespace gantry::task
