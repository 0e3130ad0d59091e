#include "lib/sys/errno.h"

#include <errno.h>
#include <string.h>

#include "absl/strings/str_cat.h"

namespace gantry::sys {
namespace {

absl::StatusCode CodeOf(int error) {
  switch (error) {
    case EXDEV:
    case EPERM:
    case EACCES:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
      return absl::StatusCode::kResourceExhausted;
    case ELOOP:
    case EBUSY:
    case ENOTDIR:
    case EISDIR:
    case ENOTEMPTY:
      return absl::StatusCode::kFailedPrecondition;
    case EPIPE:
    case ECONNREFUSED:
    case ECONNRESET:
    case ENOTCONN:
    case EAGAIN:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::ErrnoToStatusCode(error);
  }
}

}  // namespace

absl::Status ErrnoError(int error, absl::string_view attempt) {
  // strerrordesc_np neither allocates nor looks at the locale, so it is right inside a container.
  const char* text = ::strerrordesc_np(error);
  return absl::Status(CodeOf(error), text != nullptr ? absl::StrCat(attempt, ": ", text)
                                                     : absl::StrCat(attempt, ": error ", error));
}

}  // namespace gantry::sys
