#pragma once

#include "absl/status/status.h"
#include "lib/sys/unique_fd.h"

namespace gantry::runtime {

// Copies directories, regular files and links below `from` into the empty directory `to`, with
// modes and owners; other kinds are left out (tmpcopyup). Follows no links. At most 64 levels deep.
absl::Status CopyTree(const sys::UniqueFd& from, const sys::UniqueFd& to);

}  // namespace gantry::runtime
