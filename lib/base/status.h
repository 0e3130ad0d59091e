// Early return on errors, and context for them. STYLE: what we tried, on what, why, what to do.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry {

// The same code and payloads, with "`context`: " in front of the message. OK stays OK.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

template <typename T>
absl::StatusOr<T> Annotate(absl::StatusOr<T> value, absl::string_view context) {
  if (value.ok()) return value;
  return Annotate(value.status(), context);
}

// `first` unless it is OK, then `second`: for clean-up that must all run while the first error
// wins.
absl::Status FirstError(absl::Status first, const absl::Status& second);

}  // namespace gantry

#define GANTRY_CONCAT_INNER(a, b) a##b
#define GANTRY_CONCAT(a, b) GANTRY_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)                                       \
  do {                                                                    \
    if (absl::Status gantry_status = (expression); !gantry_status.ok()) { \
      return gantry_status;                                               \
    }                                                                     \
  } while (false)

#define ASSIGN_OR_RETURN(left, expression) \
  ASSIGN_OR_RETURN_INNER(GANTRY_CONCAT(gantry_status_or_, __LINE__), left, expression)

#define ASSIGN_OR_RETURN_INNER(temporary, left, expression)  \
  auto temporary = (expression);                             \
  if (!temporary.ok()) return std::move(temporary).status(); \
  left = std::move(temporary).value()
