// stop, restart, kill, rm, pause, unpause, rename, wait: one short call a container.

#include <utility>

#include "absl/strings/str_cat.h"
#include "ctl/commands/commands.h"
#include "ctl/flag_values.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/image/v1/image.pb.h"
#include "lib/base/status.h"

namespace gantry::ctl {
namespace {

namespace engine = ::gantry::engine::v1;

// Beside the stop time-out itself: what a stop may take for its bookkeeping.
constexpr absl::Duration kStopSlack = absl::Minutes(1);
constexpr absl::Duration kDefaultStop = absl::Minutes(5);

// -t and -s of stop and restart.
template <typename Request>
absl::StatusOr<absl::Duration> ReadStop(const Arguments& arguments, Request* request) {
  request->set_signal(arguments.Text("signal"));
  if (!arguments.Has("time")) return kDefaultStop + kStopSlack;
  ASSIGN_OR_RETURN(absl::Duration timeout, ParseSeconds(arguments.Text("time")));
  request->mutable_timeout()->set_seconds(absl::ToInt64Seconds(timeout));
  return timeout + kStopSlack;
}

template <typename Request, typename Response>
int StopOrRestart(Context& context, const Arguments& arguments, absl::string_view verb,
                  absl::string_view method) {
  Request request;
  absl::StatusOr<absl::Duration> timeout = ReadStop(arguments, &request);
  if (!timeout.ok()) return context.Fail(absl::StrCat("cannot ", verb), timeout.status());
  return context.ForEach(arguments.positional(), verb, true, [&](const std::string& name) {
    Response response;
    request.set_container(name);
    return context.suite().Call("engine", method, request, &response, *timeout);
  });
}

int Stop(Context& context, const Arguments& arguments) {
  return StopOrRestart<engine::StopContainerRequest, engine::StopContainerResponse>(
      context, arguments, "stop", "/gantry.engine.v1.Containers/Stop");
}

int Restart(Context& context, const Arguments& arguments) {
  return StopOrRestart<engine::RestartContainerRequest, engine::RestartContainerResponse>(
      context, arguments, "restart", "/gantry.engine.v1.Containers/Restart");
}

int Kill(Context& context, const Arguments& arguments) {
  return context.ForEach(arguments.positional(), "kill", true, [&](const std::string& name) {
    engine::KillContainerRequest request;
    engine::KillContainerResponse response;
    request.set_container(name);
    request.set_signal(arguments.Text("signal"));
    return context.suite().Call("engine", "/gantry.engine.v1.Containers/Kill", request, &response);
  });
}

// `rm IMAGE` is a common slip.
bool IsImage(Context& context, const std::string& name) {
  image::v1::InspectImageRequest request;
  image::v1::ImageDetails details;
  request.set_reference(name);
  return context.suite().Call("image", "/gantry.image.v1.Images/Inspect", request, &details).ok();
}

int Remove(Context& context, const Arguments& arguments) {
  const bool force = arguments.Is("force");
  return context.ForEach(arguments.positional(), "remove", false, [&](const std::string& name) {
    engine::RemoveContainerRequest request;
    engine::RemoveContainerResponse response;
    request.set_container(name);
    request.set_force(force);
    request.set_volumes(arguments.Is("volumes"));
    const absl::Status status = context.suite().Call(
        "engine", "/gantry.engine.v1.Containers/Remove", request, &response, kSlowCall);
    // As Docker: -f asks for the container to be gone, and it is.
    if (force && absl::IsNotFound(status)) {
      context.Note(absl::StrCat("gantryctl: ", status.message()));
      return absl::OkStatus();
    }
    if (absl::IsNotFound(status) && IsImage(context, name)) {
      return absl::NotFoundError(absl::StrCat(status.message(), "; this is an image"));
    }
    if (status.ok()) context.out().Write(absl::StrCat(name, "\n"));
    return status;
  });
}

int Pause(Context& context, const Arguments& arguments) {
  return context.ForEach(arguments.positional(), "pause", true, [&](const std::string& name) {
    engine::PauseContainerRequest request;
    engine::PauseContainerResponse response;
    request.set_container(name);
    return context.suite().Call("engine", "/gantry.engine.v1.Containers/Pause", request, &response);
  });
}

int Unpause(Context& context, const Arguments& arguments) {
  return context.ForEach(arguments.positional(), "unpause", true, [&](const std::string& name) {
    engine::UnpauseContainerRequest request;
    engine::UnpauseContainerResponse response;
    request.set_container(name);
    return context.suite().Call("engine", "/gantry.engine.v1.Containers/Unpause", request,
                                &response);
  });
}

int Rename(Context& context, const Arguments& arguments) {
  engine::RenameContainerRequest request;
  engine::RenameContainerResponse response;
  request.set_container(arguments.positional()[0]);
  request.set_new_name(arguments.positional()[1]);
  const absl::Status status =
      context.suite().Call("engine", "/gantry.engine.v1.Containers/Rename", request, &response);
  if (status.ok()) return kExitOk;
  return context.Fail(absl::StrCat("cannot rename \"", request.container(), "\""), status);
}

int Wait(Context& context, const Arguments& arguments) {
  return context.ForEach(arguments.positional(), "wait for", false, [&](const std::string& name) {
    engine::WaitContainerRequest request;
    engine::WaitContainerResponse response;
    request.set_container(name);
    const absl::Status status = context.suite().Call("engine", "/gantry.engine.v1.Containers/Wait",
                                                     request, &response, absl::InfiniteDuration());
    if (status.ok()) {
      context.out().Write(absl::StrCat(response.exit_code(), "\n"));
      context.out().Flush();  // The next one may take long.
    }
    return status;
  });
}

constexpr FlagSpec kStopFlags[] = {
    {"signal", 's', FlagKind::kText, "string", "Signal to send instead of the container's own"},
    {"time", 't', FlagKind::kText, "int", "Seconds to wait before killing; -1 waits for ever"},
    {"timeout", 0, FlagKind::kText, "int", "", "time"},
};
constexpr FlagSpec kKillFlags[] = {
    {"signal", 's', FlagKind::kText, "string", "Signal to send (default KILL)"},
};
constexpr FlagSpec kRemoveFlags[] = {
    {"force", 'f', FlagKind::kSwitch, "", "Kill it first if it runs"},
    {"volumes", 'v', FlagKind::kSwitch, "", "Remove its anonymous volumes too"},
};

}  // namespace

absl::Span<const CommandSpec> LifecycleCommands() {
  static const CommandSpec kCommands[] = {
      {"stop", "[OPTIONS] CONTAINER [CONTAINER...]", "Stop running containers", kStopFlags, 1, -1,
       false, "gantryctl stop -t 30 web", Stop},
      {"restart", "[OPTIONS] CONTAINER [CONTAINER...]", "Restart containers", kStopFlags, 1, -1,
       false, "", Restart},
      {"kill", "[OPTIONS] CONTAINER [CONTAINER...]", "Send a signal to containers", kKillFlags, 1,
       -1, false, "gantryctl kill -s HUP web", Kill},
      {"rm", "[OPTIONS] CONTAINER [CONTAINER...]", "Remove containers", kRemoveFlags, 1, -1, false,
       "gantryctl rm -f $(gantryctl ps -aq)", Remove},
      {"pause",
       "CONTAINER [CONTAINER...]",
       "Freeze all processes of containers",
       {},
       1,
       -1,
       false,
       "",
       Pause},
      {"unpause",
       "CONTAINER [CONTAINER...]",
       "Let frozen containers go on",
       {},
       1,
       -1,
       false,
       "",
       Unpause},
      {"rename", "CONTAINER NEW_NAME", "Rename a container", {}, 2, 2, false, "", Rename},
      {"wait",
       "CONTAINER [CONTAINER...]",
       "Wait until containers stop, then print their exit codes",
       {},
       1,
       -1,
       false,
       "",
       Wait},
  };
  return kCommands;
}

}  // namespace gantry::ctl
