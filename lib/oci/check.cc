#include "lib/oci/check.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::oci::check {

absl::Status Wrong(absl::string_view path, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", reason));
}

std::string Key(absl::string_view path, absl::string_view key) {
  return path.empty() ? std::string(key) : absl::StrCat(path, ".", key);
}

std::string Quote(absl::string_view text) {
  return absl::StrCat("'", EscapeForTerminal(text.substr(0, 128)), "'");
}

absl::Status CheckNoNul(absl::string_view path, absl::string_view value) {
  if (!absl::StrContains(value, absl::string_view("\0", 1))) return absl::OkStatus();
  return Wrong(path, "contains a zero byte");
}

absl::Status CheckNoNuls(absl::string_view path, const std::vector<std::string>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    RETURN_IF_ERROR(CheckNoNul(absl::StrCat(path, "[", i, "]"), values[i]));
  }
  return absl::OkStatus();
}

absl::Status CheckOneLine(absl::string_view path, absl::string_view value) {
  for (char c : value) {
    if (c == '\n' || c == '\0' || c == '\r') return Wrong(path, "must be a single line of text");
  }
  return absl::OkStatus();
}

absl::Status CheckAbsolute(absl::string_view path, absl::string_view value) {
  RETURN_IF_ERROR(CheckNoNul(path, value));
  if (absl::StartsWith(value, "/")) return absl::OkStatus();
  return Wrong(path, absl::StrCat(Quote(value), " is not an absolute path"));
}

absl::Status CheckCharacters(absl::string_view path, absl::string_view value,
                             absl::string_view others, absl::string_view what) {
  for (char c : value) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c)) && !absl::StrContains(others, c)) {
      return Wrong(path, absl::StrCat(Quote(value), " is not ", what));
    }
  }
  return absl::OkStatus();
}

}  // namespace gantry::oci::check
