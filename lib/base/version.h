// What this build is.
#pragma once

#include "absl/strings/string_view.h"

namespace gantry {

absl::string_view Version();  // "0.1.0"
absl::string_view Commit();   // Abbreviated, of the configured tree; "unknown" outside git.

}  // namespace gantry
