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

// `scratch` and `program` are where this process mounts and what it starts by default.
absl::StatusOr<Options> ReadOptions(const config::Section& section, const std::string& scratch,
                                    const std::string& program);

}  // namespace gantry::image
