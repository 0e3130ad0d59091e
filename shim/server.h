// The process that serves: one thread, one socket, the containers of one group.
#pragma once

#include "absl/status/status.h"
#include "shim/arguments.h"

namespace gantry::shim {

// Serves on descriptor 3, a listening socket, until Shutdown. Returns when everything was sent,
// with the socket removed.
absl::Status Serve(const Arguments& arguments);

}  // namespace gantry::shim
