// Hooks of config.json: programs of the host's, run at fixed points of a container's life.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"

namespace gantry::runtime {

// Where hooks write. An invalid descriptor: stdout to nowhere, stderr into the error message.
struct HookOutput {
  sys::UniqueFd out, err;
};

// Runs `hooks` in order, each with `state_json` on its stdin, exactly its own arguments and
// environment, and its timeout enforced by SIGKILL to its process group. `kind` names them in
// errors. Errors: FailedPrecondition — the first that failed, with what it wrote to stderr; the
// rest is not run.
absl::Status RunHooks(const std::vector<oci::Hook>& hooks, absl::string_view kind,
                      const std::string& state_json, const HookOutput& output = {});

// All of them, whatever fails; the failures are returned. For poststop.
std::vector<std::string> RunAllHooks(const std::vector<oci::Hook>& hooks, absl::string_view kind,
                                     const std::string& state_json, const HookOutput& output = {});

}  // namespace gantry::runtime
