// One Prometheus page out of the pages of all processes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace gantry::gateway {

// Merges pages in the text format (version 0.0.4): each family stands once, with HELP and TYPE of
// the first process that has it, and every sample carries a label `process`. Lines that are neither
// comments nor samples are left out. `pages`: process and text.
std::string MergePages(const std::vector<std::pair<std::string, std::string>>& pages);

}  // namespace gantry::gateway
