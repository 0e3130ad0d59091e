// Descriptors 0, 1 and 2 of a new program: those it was given, or a terminal.
#pragma once

#include <sys/types.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"
#include "runtime/runtime.h"

namespace gantry::runtime {

// Makes `in`, `out`, `err` the descriptors 0, 1, 2 (-1: /dev/null) and gives them to `uid` where
// they are pipes, so that the program can open /dev/stderr again.
absl::Status InstallStdio(const Stdio& stdio, uid_t uid);

// `slave` as controlling terminal and 0, 1, 2. The caller leads a session of its own.
absl::Status InstallTerminal(const sys::UniqueFd& slave, const oci::User& user);

// A new pair in the container's devpts, found from `root`.
struct Terminal {
  sys::UniqueFd master, slave;
};
absl::StatusOr<Terminal> OpenTerminal(const sys::UniqueFd& root, const TerminalSize& size);

}  // namespace gantry::runtime
