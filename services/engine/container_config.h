// What a person asked for, checked, and completed from the image: names, ranges, conflicts. Pure;
// knows no container and no process.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/image/v1/image.pb.h"

namespace gantry::engine {

inline constexpr absl::string_view kDefaultPath =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// Names of containers and volumes: a letter or digit, then letters, digits, '_', '.', '-'; two to
// 128.
absl::Status CheckName(absl::string_view field, absl::string_view name);

// Everything that can be said without the image: grammars, ranges, options that exclude each other.
// Errors: InvalidArgument, naming field and rule; a limit this suite does not have is
// Unimplemented.
absl::Status CheckConfig(const v1::ContainerConfig& config);

// `config` with what the image sets and the person did not: entrypoint, command, environment,
// working directory, user, stop signal, labels, exposed ports; defaults for network, restart, log.
v1::ContainerConfig CompleteConfig(const v1::ContainerConfig& config,
                                   const image::v1::ImageConfig& image);

// Program and arguments of a completed configuration. Errors: InvalidArgument "no command
// specified".
absl::StatusOr<std::vector<std::string>> CommandLine(const v1::ContainerConfig& completed);

// Sets NAME in a list of "NAME=value"; the place of an existing entry is kept.
void SetEnvironment(std::vector<std::string>& environment, absl::string_view name,
                    absl::string_view value);
bool HasEnvironment(const std::vector<std::string>& environment, absl::string_view name);

// "80", "80/udp", "80-82/tcp" as (port, protocol). Errors: InvalidArgument.
absl::StatusOr<std::vector<std::pair<uint32_t, std::string>>> ParseExposed(absl::string_view text);

// The container that "container:X" names; empty for every other text.
absl::string_view SharedContainer(absl::string_view mode);

}  // namespace gantry::engine
