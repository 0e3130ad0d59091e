#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "lib/config/config.h"
#include "services/image/installer.h"
#include "services/image/registry.h"
#include "services/image/unpacker.h"

namespace gantry::image {

// The section [image] of the configuration (README.md lists the keys).
struct Options {
  RegistryOptions registry;
  InstallerOptions installer;
  UnpackerOptions unpacker;
  oci::ImageLimits limits;
};

// `scratch`, `program` and `hosts_directory` are where this process mounts, what it starts and
// where it looks for registry_hosts.h's files by default.
absl::StatusOr<Options> ReadOptions(const config::Section& section, const std::string& scratch,
                                    const std::string& program, const std::string& hosts_directory);

}  // namespace gantry::image
