// Reading and writing the small files of a cgroup directory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/cgroup/cgroup.h"

namespace gantry::cgroup {

// One write(2) of `value`. Errors: with the file's path and the value in the message.
absl::Status WriteControl(const std::string& directory, absl::string_view file,
                          absl::string_view value);

// The content without the newline at its end. Errors: NotFound.
absl::StatusOr<std::string> ReadControl(const std::string& directory, absl::string_view file);

// A number; "max" and what does not fit are kNoLimit. A missing file is 0.
uint64_t ReadNumber(const std::string& directory, absl::string_view file);

// Lines of "name value". A missing file is an empty list.
std::vector<NamedValue> ReadNamed(const std::string& directory, absl::string_view file);
std::vector<NamedValue> ParseNamed(absl::string_view text);

}  // namespace gantry::cgroup
