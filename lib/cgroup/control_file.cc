#include "lib/cgroup/control_file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::cgroup {

absl::Status WriteControl(const std::string& directory, absl::string_view file,
                          absl::string_view value) {
  const std::string path = absl::StrCat(directory, "/", file);
  sys::UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (fd.ok()) {
    ssize_t written;
    do {
      written = ::write(fd.get(), value.data(), value.size());
    } while (written < 0 && errno == EINTR);
    if (written >= 0) return absl::OkStatus();
  }
  const int error = errno;
  return sys::ErrnoError(error,
                         absl::StrCat("write '", EscapeForTerminal(value), "' to '", path, "'"));
}

absl::StatusOr<std::string> ReadControl(const std::string& directory, absl::string_view file) {
  ASSIGN_OR_RETURN(std::string text, sys::ReadFile(absl::StrCat(directory, "/", file)));
  absl::StripTrailingAsciiWhitespace(&text);
  return text;
}

uint64_t ReadNumber(const std::string& directory, absl::string_view file) {
  absl::StatusOr<std::string> text = ReadControl(directory, file);
  if (!text.ok()) return 0;
  uint64_t number = 0;
  return absl::SimpleAtoi(*text, &number) ? number : kNoLimit;
}

std::vector<NamedValue> ParseNamed(absl::string_view text) {
  std::vector<NamedValue> values;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const size_t space = line.find(' ');
    uint64_t number = 0;
    if (space == absl::string_view::npos || !absl::SimpleAtoi(line.substr(space + 1), &number)) {
      continue;
    }
    values.push_back({std::string(line.substr(0, space)), number});
  }
  return values;
}

std::vector<NamedValue> ReadNamed(const std::string& directory, absl::string_view file) {
  absl::StatusOr<std::string> text = ReadControl(directory, file);
  return text.ok() ? ParseNamed(*text) : std::vector<NamedValue>();
}

}  // namespace gantry::cgroup
