// The functions templates may call.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ctl/value.h"

namespace gantry::ctl::internal {

// Errors: InvalidArgument — wrong number or kind of arguments, an index that is not there.
absl::StatusOr<Value> CallTemplateFunction(absl::string_view name,
                                           const std::vector<Value>& arguments);

}  // namespace gantry::ctl::internal
