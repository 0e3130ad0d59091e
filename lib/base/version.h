// What this build is.
#pragma once

#include "absl/strings/string_view.h"

namespace gantry {

absl::string_view Version();    // "0.1.0"
absl::string_view BuildTime();  // Of the commit (or SOURCE_DATE_EPOCH), RFC 3339.
absl::string_view Commit();     // Abbreviated, of the configured tree; "unknown" outside git.

}  // namespace gantry
