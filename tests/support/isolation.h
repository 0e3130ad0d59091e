// Namespaces a test program puts itself into, so that suites run side by side and leave the machine
// alone.
#pragma once

#include "absl/status/status.h"

namespace gantry::testing {

// New mount namespace, propagation private, and new network namespace with loopback up. Call it
// while the process has one thread. Needs root.
absl::Status EnterPrivateNamespaces();

}  // namespace gantry::testing
