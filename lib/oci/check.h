// Pieces of the rules of config.json. Each returns InvalidArgument with the path of the bad key.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "lib/oci/spec.h"

namespace gantry::oci::check {

// 4294967295 is (uid_t)-1, which the kernel reads as "leave unchanged" (SECURITY-RULES 19).
inline constexpr uint32_t kMaxId = 4294967294;

// The error itself: "path: reason".
absl::Status Wrong(absl::string_view path, absl::string_view reason);

// "path.key".
std::string Key(absl::string_view path, absl::string_view key);

// Escaped, in single quotes, at most 128 bytes of it.
std::string Quote(absl::string_view text);

template <typename List>
absl::Status CheckOneOf(absl::string_view path, absl::string_view value, const List& allowed) {
  for (absl::string_view candidate : allowed) {
    if (candidate == value) return absl::OkStatus();
  }
  return Wrong(path, absl::StrCat(Quote(value), " is not one of ", absl::StrJoin(allowed, ", ")));
}

// Strings that go to the kernel end at a zero byte: one inside would cut off what was checked.
absl::Status CheckNoNul(absl::string_view path, absl::string_view value);
absl::Status CheckNoNuls(absl::string_view path, const std::vector<std::string>& values);
absl::Status CheckOneLine(absl::string_view path, absl::string_view value);
absl::Status CheckAbsolute(absl::string_view path, absl::string_view value);
// Digits and the characters of `others` only; `what` says what it should be.
absl::Status CheckCharacters(absl::string_view path, absl::string_view value,
                             absl::string_view others, absl::string_view what);

absl::Status CheckSeccomp(const Seccomp& seccomp);
absl::Status CheckSysctl(const Linux& linux_config, const std::string& name,
                         const std::string& value);

}  // namespace gantry::oci::check
