// `delete`: what a daemon runs when the connection to a shim has ended, whatever the reason.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "shim/arguments.h"

namespace gantry::shim {

// Ends and removes what is left of the container, from its files alone; quick when nothing is.
// Returns a DeleteResponse with the exit that was recorded, else 137 and now. May be repeated.
absl::StatusOr<std::string> CleanUp(const Arguments& arguments);

}  // namespace gantry::shim
