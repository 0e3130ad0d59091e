#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "lib/sys/unique_fd.h"

namespace gantry::runtime {

// Moves interfaces of this process's network namespace into another one (linux.netDevices): each
// keeps its permanent global addresses, gets its new name ("" keeps the old one; "eth%d" takes the
// next free number) and is set up. They are not moved back when the container ends; the kernel
// returns hardware to the first namespace by itself. Errors: NotFound — no such interface.
absl::Status MoveNetDevices(const std::map<std::string, std::string>& devices,
                            const sys::UniqueFd& network_namespace);

}  // namespace gantry::runtime
