// Manual pages, from the same table as the help: gantryctl(1) and one page a command.
#pragma once

#include <string>

#include "ctl/command_line.h"

namespace gantry::ctl {

// "gantryctl-run", "gantryctl-volume-ls".
std::string ManualName(const CommandSpec& command);

// The page of a command, and the one that names them all, for man(7).
std::string ManualPage(const CommandSpec& command);
std::string ManualOverview();

}  // namespace gantry::ctl
