#include "lib/base/identifier.h"

#include <errno.h>
#include <sys/random.h>

#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace gantry {
namespace {

constexpr size_t kMaxIdentifierBytes = 76;
constexpr size_t kMaxLabelBytes = 4096;

bool HasIdentifierShape(absl::string_view value) {
  bool joined = true;  // Whether the next byte must be a letter or digit.
  for (char c : value) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c))) {
      joined = false;
    } else if ((c == '.' || c == '_' || c == '-') && !joined) {
      joined = true;
    } else {
      return false;
    }
  }
  return !joined;
}

}  // namespace

absl::Status CheckIdentifier(absl::string_view field, absl::string_view value) {
  if (value.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(field, " is empty; give it a name"));
  }
  if (value.size() > kMaxIdentifierBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, " is ", value.size(), " bytes long; at most ", kMaxIdentifierBytes, " are allowed"));
  }
  if (!HasIdentifierShape(value)) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " '", absl::CHexEscape(value),
                     "' is not valid; use letters and digits joined by single '.', '_' or '-'"));
  }
  return absl::OkStatus();
}

absl::Status CheckKey(absl::string_view field, absl::string_view value, size_t max_bytes) {
  if (value.empty()) return absl::InvalidArgumentError(absl::StrCat(field, " is empty"));
  if (value.size() > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, " is ", value.size(), " bytes long; at most ", max_bytes, " are allowed"));
  }
  for (char c : value) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, " '", absl::CHexEscape(value), "' has a byte that is not printable"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLabel(absl::string_view key, absl::string_view value) {
  if (key.empty()) return absl::InvalidArgumentError("label with an empty key");
  if (key.size() + value.size() > kMaxLabelBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "label '", absl::CHexEscape(key.substr(0, 64)), "' is ", key.size() + value.size(),
        " bytes long; key and value may have at most ", kMaxLabelBytes, " together"));
  }
  return absl::OkStatus();
}

std::string RandomHex(size_t bytes) {
  std::string raw(bytes, '\0');
  size_t filled = 0;
  while (filled < raw.size()) {
    ssize_t count = ::getrandom(raw.data() + filled, raw.size() - filled, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0)
      std::abort();  // Cannot fail on any kernel we run on; an id must not be guessable.
    filled += static_cast<size_t>(count);
  }
  return absl::BytesToHexString(raw);
}

}  // namespace gantry
