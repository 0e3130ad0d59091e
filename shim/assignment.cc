#include "shim/assignment.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/unique_fd.h"

namespace gantry::shim {
namespace {

constexpr int kAssignmentFd = 4;
constexpr size_t kMaxAssignmentBytes = 4096;  // PIPE_BUF: it was written in one piece.

// The value after `flag` becomes `text`, as far as the space of the old one goes.
void Overwrite(char** argv, const char* flag, absl::string_view text) {
  for (; argv[0] != nullptr && argv[1] != nullptr; ++argv) {
    if (::strcmp(argv[0], flag) != 0) continue;
    const size_t space = ::strlen(argv[1]);
    const size_t length = std::min(space, text.size());
    ::memcpy(argv[1], text.data(), length);
    ::memset(argv[1] + length, 0, space - length);
    return;
  }
}

absl::string_view TakeWord(absl::string_view* bytes) {
  const size_t end = bytes->find('\0');
  if (end == absl::string_view::npos) return absl::string_view();
  const absl::string_view word = bytes->substr(0, end);
  bytes->remove_prefix(end + 1);
  return word;
}

}  // namespace

absl::StatusOr<Assignment> ParseAssignment(absl::string_view bytes) {
  Assignment assignment;
  assignment.ns = TakeWord(&bytes);
  assignment.id = TakeWord(&bytes);
  assignment.bundle = TakeWord(&bytes);
  if (!bytes.empty() || assignment.bundle.empty() || assignment.bundle[0] != '/') {
    return absl::InvalidArgumentError(
        "await: descriptor 4 must carry a namespace, an id and an absolute path");
  }
  RETURN_IF_ERROR(CheckIdentifier("namespace", assignment.ns));
  RETURN_IF_ERROR(CheckIdentifier("id", assignment.id));
  return assignment;
}

absl::StatusOr<bool> AwaitAssignment(Arguments* arguments, char** argv) {
  sys::UniqueFd pipe(kAssignmentFd);
  ASSIGN_OR_RETURN(const std::string bytes, sys::ReadAll(pipe, kMaxAssignmentBytes));
  if (bytes.empty()) return false;
  ASSIGN_OR_RETURN(const Assignment assignment, ParseAssignment(bytes));
  arguments->ns = std::string(assignment.ns);
  arguments->id = std::string(assignment.id);
  const std::string bundle(assignment.bundle);
  if (::chdir(bundle.c_str()) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("enter the bundle '", bundle, "'"));
  }
  Overwrite(argv, "-namespace", assignment.ns);
  Overwrite(argv, "-id", assignment.id);
  return true;
}

}  // namespace gantry::shim
