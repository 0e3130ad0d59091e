// The frame of every inspect: several names, an array of what was found, or a template for each.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "ctl/command_line.h"
#include "ctl/context.h"
#include "ctl/value.h"

namespace gantry::ctl {

using FindObject = std::function<absl::StatusOr<Value>(const std::string& name)>;

// Prints what `find` answers for every name, as --format says; errors go to stderr and give 1.
int InspectEach(Context& context, const Arguments& arguments, const FindObject& find);

}  // namespace gantry::ctl
