// Kernel errors as statuses.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gantry::sys {

// "`attempt`: <strerror text>" with the code a caller can act on. Mends Abseil's choices where the
// kernel means something else: EXDEV and ELOOP from openat2 are escapes, so PermissionDenied and
// FailedPrecondition; ENOSPC, EDQUOT, EMFILE, ENFILE, ENOMEM are ResourceExhausted.
absl::Status ErrnoError(int error, absl::string_view attempt);

}  // namespace gantry::sys
