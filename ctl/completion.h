// Completion of command lines, from the same table as everything else: scripts for three shells,
// which ask gantryctl itself what could come next.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ctl/command_line.h"

namespace gantry::ctl {

// What the script of `shell` (bash, zsh, fish) is. Errors: InvalidArgument — another shell.
absl::StatusOr<std::string> CompletionScript(absl::string_view shell);

// Names of things in the suite: "container", "image" or "volume"; none when it cannot be asked.
using NamesOf = std::function<std::vector<std::string>(absl::string_view kind)>;

// What the last of `words` (everything typed after "gantryctl", the last one perhaps empty) could
// become, sorted. Empty: let the shell offer files.
std::vector<std::string> Candidates(absl::Span<const std::string> words, const NamesOf& names);

}  // namespace gantry::ctl
