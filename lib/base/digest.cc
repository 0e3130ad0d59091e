#include "lib/base/digest.h"

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace gantry {
namespace {

constexpr absl::string_view kPrefix = "sha256:";
constexpr size_t kHexDigits = 64;

bool IsLowerHex(absl::string_view text) {
  for (char c : text) {
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<Digest> Digest::Parse(absl::string_view text) {
  absl::string_view hex = text;
  if (!absl::ConsumePrefix(&hex, kPrefix) || hex.size() != kHexDigits || !IsLowerHex(hex)) {
    return absl::InvalidArgumentError(
        absl::StrCat("digest '", absl::CHexEscape(text.substr(0, 128)),
                     "' is not valid; it must be 'sha256:' and 64 lower-case hex digits"));
  }
  return Digest(text);
}

absl::string_view Digest::hex() const {
  return absl::StripPrefix(absl::string_view(text_), kPrefix);
}

}  // namespace gantry
