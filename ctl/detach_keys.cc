#include "ctl/detach_keys.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/text.h"

namespace gantry::ctl {

absl::StatusOr<std::string> ParseDetachKeys(absl::string_view text) {
  std::string keys;
  if (text.empty()) return keys;
  for (absl::string_view key : absl::StrSplit(text, ',')) {
    const absl::string_view whole = key;
    const bool control = absl::ConsumePrefix(&key, "ctrl-");
    if (key.size() != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown detach key '", EscapeForTerminal(whole),
                       "': use characters and ctrl-a to ctrl-z, separated by commas"));
    }
    const char letter = absl::ascii_tolower(key.front());
    if (!control) {
      keys.push_back(key.front());
    } else if (absl::ascii_islower(letter)) {
      keys.push_back(static_cast<char>(letter - 'a' + 1));
    } else if (letter == '@' || (letter >= '[' && letter <= '_')) {
      keys.push_back(static_cast<char>(letter - '@'));
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown detach key '", EscapeForTerminal(whole),
                       "': after ctrl- comes one of a-z @ [ \\ ] ^ _"));
    }
  }
  return keys;
}

bool DetachWatch::Feed(absl::string_view typed, std::string* forward) {
  if (keys_.empty()) {
    absl::StrAppend(forward, typed);
    return false;
  }
  for (const char byte : typed) {
    held_.push_back(byte);
    // What cannot become the sequence any more goes to the program; its end may begin it anew.
    size_t passed = 0;
    while (keys_.compare(0, held_.size() - passed, held_, passed, std::string::npos) != 0) ++passed;
    forward->append(held_, 0, passed);
    held_.erase(0, passed);
    if (held_.size() == keys_.size()) {
      held_.clear();
      return true;
    }
  }
  return false;
}

}  // namespace gantry::ctl
