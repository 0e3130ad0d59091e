// What run, start, attach and exec share: joining a person to the streams of a program.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ctl/command_line.h"
#include "ctl/context.h"
#include "ctl/session.h"
#include "gantry/engine/v1/engine.pb.h"

namespace gantry::ctl {

// Docker's code for a container that could not be started: the program, not the engine, is at fault
// in the cases of 126 and 127 (E.6); kExitRunFailed otherwise.
int StartFailureCode(const absl::Status& status);

// The sequence of --detach-keys, of GANTRY_DETACH_KEYS, or the usual one.
absl::StatusOr<std::string> DetachKeys(Context& context, const Arguments& arguments);

// Sends a signal to the container's program. A container that has ended is no error.
std::function<void(int)> SignalSender(Context& context, const std::string& id);

// What the engine says of the run that ends as `condition` says, when it has.
absl::StatusOr<engine::v1::WaitContainerResponse> WaitFor(
    Context& context, const std::string& id, engine::v1::WaitContainerRequest::Condition condition);

// What a joined session means for our own exit code.
struct JoinedEnd {
  int exit_code = 0;
  bool program_ended = false;
};

// Runs a session. When the shim closed it without telling the end, the engine is asked.
absl::StatusOr<JoinedEnd> Join(Context& context, const std::string& id,
                               const engine::v1::AttachAddress& address,
                               const SessionOptions& options);

// Errors: FailedPrecondition — keys are to reach a terminal in the container, and there is none
// here.
absl::Status CheckTerminal(Context& context, bool tty, bool want_stdin);

}  // namespace gantry::ctl
