// A shim that was started before its container was known: gantry-task keeps a few of these waiting,
// so that a start does not pay for exec and for protecting the binary.
//
// With the flag -await the serving form waits on descriptor 4, the read end of a pipe, for
// "NAMESPACE\0ID\0BUNDLE\0" and its end. An end without that means that the supervisor has gone or
// needs no more shims: the process ends, having done nothing.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shim/arguments.h"

namespace gantry::shim {

// Waits; fills in namespace and id, makes the bundle the working directory, and writes both names
// over the ones on the command line (`argv`, as main got it), where people and audits read them.
// False: there is nothing to do, end. Errors: InvalidArgument — not an assignment; NotFound — no
// bundle.
absl::StatusOr<bool> AwaitAssignment(Arguments* arguments, char** argv);

// The names in `bytes`. Errors: InvalidArgument.
struct Assignment {
  absl::string_view ns;
  absl::string_view id;
  absl::string_view bundle;
};
absl::StatusOr<Assignment> ParseAssignment(absl::string_view bytes);

}  // namespace gantry::shim
