#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shim/oci_runtime.h"

namespace gantry::shim {

// A foreign OCI runtime (runc, crun, runsc …), executed for each operation. Answers come when the
// command has ended; the loop goes on meanwhile.
std::unique_ptr<OciRuntime> MakeCommandRuntime(sys::EventLoop& loop, Reaper& reaper,
                                               std::string binary, RuntimeConfig config);

// The path of `name`, looked up in PATH unless it has a slash. Errors: NotFound.
absl::StatusOr<std::string> FindBinary(const std::string& name);

// `binary delete --force`, waiting for it.
absl::Status ForceDeleteByCommand(const std::string& binary, const RuntimeConfig& config);

}  // namespace gantry::shim
