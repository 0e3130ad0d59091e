// AppArmor profiles and SELinux labels: is there a kernel that would honour them?
#pragma once

#include <string>

#include "absl/status/status.h"
#include "lib/oci/spec.h"

namespace gantry::runtime {

// A label that the kernel would ignore is no confinement, so it is refused. Errors:
// FailedPrecondition, with the key.
// `sysfs` is where the kernel tells.
absl::Status CheckLabels(const oci::Process& process, const std::string& mount_label,
                         const std::string& sysfs = "/sys");

}  // namespace gantry::runtime
