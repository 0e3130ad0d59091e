// Which containers share a shim.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace gantry::task {

// The name of the group that a container's config.json puts it into: the annotation
// `io.containerd.runc.v2.group`, else `io.kubernetes.cri.sandbox-id` (contracts/containerd, 5.3).
// Empty: it is alone, or the document is damaged, which its creation will say.
std::string PodGroupOf(absl::string_view config_json);

}  // namespace gantry::task
