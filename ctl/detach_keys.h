// The keys that leave a terminal session without ending the program: ctrl-p ctrl-q unless told
// otherwise.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::ctl {

inline constexpr char kDefaultDetachKeys[] = "ctrl-p,ctrl-q";

// "ctrl-p,ctrl-q" as the bytes a terminal sends. Keys: a single character, or ctrl- and one of
// a-z @ [ \ ] ^ _. The empty text stands for no keys. Errors: InvalidArgument.
absl::StatusOr<std::string> ParseDetachKeys(absl::string_view text);

// Watches typed bytes for the sequence, across reads. Thread-compatible.
class DetachWatch {
 public:
  explicit DetachWatch(std::string keys) : keys_(std::move(keys)) {}

  // Appends to `forward` what the program may see; a beginning of the sequence is held back until
  // the next byte tells. True: the sequence is complete; what follows it is not looked at.
  bool Feed(absl::string_view typed, std::string* forward);

 private:
  std::string keys_;
  std::string held_;  // The beginning of keys_ that was typed last.
};

}  // namespace gantry::ctl
