#include "ctl/commands/joining.h"

#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ctl/detach_keys.h"
#include "lib/base/status.h"

namespace gantry::ctl {
namespace {

constexpr char kKill[] = "/gantry.engine.v1.Containers/Kill";
constexpr char kWait[] = "/gantry.engine.v1.Containers/Wait";

// How long a signal may take to be delivered before we go back to copying bytes.
constexpr absl::Duration kSignalCall = absl::Seconds(5);

}  // namespace

int StartFailureCode(const absl::Status& status) {
  if (!absl::IsFailedPrecondition(status) && !absl::IsNotFound(status) &&
      !absl::IsPermissionDenied(status)) {
    return kExitRunFailed;
  }
  const std::string message(status.message());
  if (absl::StrContains(message, "executable file not found")) return kExitNoProgram;
  // As the engine's own record of a start that failed.
  if (absl::StrContains(message, "chdir to cwd")) return kExitNoProgram;
  for (const char* reason : {"permission denied", "Permission denied", "exec format error",
                             "Exec format error", "is a directory", "Is a directory"}) {
    if (absl::StrContains(message, reason)) return kExitCannotInvoke;
  }
  return kExitRunFailed;
}

absl::StatusOr<std::string> DetachKeys(Context& context, const Arguments& arguments) {
  const std::string configured =
      context.Environment("GANTRY_DETACH_KEYS").value_or(kDefaultDetachKeys);
  return ParseDetachKeys(arguments.Text("detach-keys", configured));
}

std::function<void(int)> SignalSender(Context& context, const std::string& id) {
  return [&context, id](int signal) {
    engine::v1::KillContainerRequest request;
    engine::v1::KillContainerResponse response;
    request.set_container(id);
    request.set_signal(absl::StrCat(signal));
    const absl::Status status =
        context.suite().Call("engine", kKill, request, &response, kSignalCall);
    // It ended meanwhile: then there is nobody to signal, and the session is about to see it.
    if (!status.ok() && !absl::IsFailedPrecondition(status) && !absl::IsNotFound(status)) {
      context.Fail("cannot forward the signal", status);
    }
  };
}

absl::StatusOr<engine::v1::WaitContainerResponse> WaitFor(
    Context& context, const std::string& id,
    engine::v1::WaitContainerRequest::Condition condition) {
  engine::v1::WaitContainerRequest request;
  engine::v1::WaitContainerResponse response;
  request.set_container(id);
  request.set_condition(condition);
  RETURN_IF_ERROR(
      context.suite().Call("engine", kWait, request, &response, absl::InfiniteDuration()));
  return response;
}

absl::StatusOr<JoinedEnd> Join(Context& context, const std::string& id,
                               const engine::v1::AttachAddress& address,
                               const SessionOptions& options) {
  ASSIGN_OR_RETURN(SessionResult result, RunSession(context, address, options));
  switch (result.kind) {
    case SessionResult::Kind::kExited:
      return JoinedEnd{result.exit_code, true};
    case SessionResult::Kind::kDetached:
      return JoinedEnd{kExitOk, false};
    case SessionResult::Kind::kKilled:
      return JoinedEnd{result.exit_code, false};
    case SessionResult::Kind::kLost:
      break;
  }
  ASSIGN_OR_RETURN(
      engine::v1::WaitContainerResponse ended,
      Annotate(WaitFor(context, id, engine::v1::WaitContainerRequest::NOT_RUNNING),
               "the container's shim closed the connection, and its exit code is not known"));
  return JoinedEnd{ended.exit_code(), true};
}

absl::Status CheckTerminal(Context& context, bool tty, bool want_stdin) {
  if (tty && want_stdin && ::isatty(context.in_fd()) != 1) {
    return absl::FailedPreconditionError("the input device is not a TTY");
  }
  return absl::OkStatus();
}

}  // namespace gantry::ctl
