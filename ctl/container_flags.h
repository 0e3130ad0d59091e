// The flags `run` and `create` share, and the configuration they stand for.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ctl/command_line.h"
#include "gantry/engine/v1/engine.pb.h"

namespace gantry::ctl {

// Flags of `create`; `run` has these and its own (kRunFlags begins with them).
absl::Span<const FlagSpec> CreateFlags();
absl::Span<const FlagSpec> RunFlags();

// Why flags of Docker's that were given cannot be obeyed. Errors: InvalidArgument, with the reason.
absl::Status RefusalOf(const Arguments& arguments);

using EnvironmentLookup = std::function<std::optional<std::string>(const std::string&)>;

// Image, command and flags as the engine wants them. `-e NAME` without a value takes the caller's,
// and is left out when the caller has none. Errors: InvalidArgument — a value that is not right.
absl::StatusOr<engine::v1::ContainerConfig> BuildConfig(const Arguments& arguments,
                                                        const EnvironmentLookup& environment);

// -e and --env-file (also of exec), the files first. Errors as BuildConfig.
absl::StatusOr<std::vector<std::string>> BuildEnvironment(const Arguments& arguments,
                                                          const EnvironmentLookup& environment);

}  // namespace gantry::ctl
