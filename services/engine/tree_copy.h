// Copies a directory tree by descriptors: what an image has at the place of a fresh volume.
#pragma once

#include "absl/status/status.h"
#include "lib/sys/unique_fd.h"

namespace gantry::engine {

// Copies what is in `from` into the empty directory `to`, with owners, modes, times, links, device
// nodes and the extended attributes security.capability and user.*; `to` itself gets owner and mode
// of `from`. No symbolic link is followed; other file systems mounted below `from` are left out.
// Hard links within the tree become files of their own. Errors: ResourceExhausted — the disk is
// full, or more than 64 levels.
absl::Status CopyTree(const sys::UniqueFd& from, const sys::UniqueFd& to);

}  // namespace gantry::engine
