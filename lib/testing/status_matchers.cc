#include "lib/testing/status_matchers.h"

#include <unistd.h>

namespace gantry::testing {

bool IsRoot() { return ::geteuid() == 0; }

}  // namespace gantry::testing
