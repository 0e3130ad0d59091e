// start and attach: joining a person to a container that is there.

#include <utility>

#include "absl/strings/str_cat.h"
#include "ctl/commands/commands.h"
#include "ctl/commands/joining.h"
#include "ctl/session.h"
#include "gantry/engine/v1/engine.pb.h"
#include "lib/base/status.h"

namespace gantry::ctl {
namespace {

constexpr char kStart[] = "/gantry.engine.v1.Containers/Start";
constexpr char kAttach[] = "/gantry.engine.v1.Containers/Attach";
constexpr char kInspect[] = "/gantry.engine.v1.Containers/Inspect";

absl::Status StartOne(Context& context, const std::string& name) {
  engine::v1::StartContainerRequest request;
  engine::v1::StartContainerResponse response;
  request.set_container(name);
  return context.suite().Call("engine", kStart, request, &response, kSlowCall);
}

absl::StatusOr<engine::v1::ContainerDetails> InspectOne(Context& context, const std::string& name) {
  engine::v1::InspectContainerRequest request;
  engine::v1::ContainerDetails details;
  request.set_container(name);
  RETURN_IF_ERROR(context.suite().Call("engine", kInspect, request, &details));
  return details;
}

SessionOptions OptionsFor(const engine::v1::ContainerDetails& details, bool want_stdin) {
  SessionOptions options;
  options.tty = details.config().tty();
  options.want_stdin = want_stdin && details.config().open_stdin();
  return options;
}

absl::StatusOr<int> StartAttached(Context& context, const Arguments& arguments,
                                  const std::string& name) {
  ASSIGN_OR_RETURN(engine::v1::ContainerDetails details, InspectOne(context, name));
  SessionOptions options = OptionsFor(details, arguments.Is("interactive"));
  options.flow_control = true;
  RETURN_IF_ERROR(CheckTerminal(context, options.tty, options.want_stdin));
  ASSIGN_OR_RETURN(options.detach_keys, DetachKeys(context, arguments));
  if (arguments.Is("sig-proxy", true) && !options.tty) {
    options.send_signal = SignalSender(context, details.id());
  }
  engine::v1::StartContainerRequest request;
  engine::v1::StartContainerResponse response;
  request.set_container(name);
  request.set_attach(true);
  const Size window = CallerWindow(context);
  request.set_tty_rows(window.rows);
  request.set_tty_columns(window.columns);
  PrepareSignals();
  RETURN_IF_ERROR(context.suite().Call("engine", kStart, request, &response, kSlowCall));
  ASSIGN_OR_RETURN(JoinedEnd end, Join(context, details.id(), response.attach(), options));
  return end.exit_code;
}

int Start(Context& context, const Arguments& arguments) {
  if (!arguments.Is("attach") && !arguments.Is("interactive")) {
    return context.ForEach(arguments.positional(), "start", true,
                           [&](const std::string& name) { return StartOne(context, name); });
  }
  const std::string& name = arguments.positional()[0];
  if (arguments.positional().size() > 1) {
    return context.Fail(
        "cannot start",
        absl::InvalidArgumentError("you cannot start and attach multiple containers at once"));
  }
  absl::StatusOr<int> exit_code = StartAttached(context, arguments, name);
  if (exit_code.ok()) return *exit_code;
  return context.Fail(absl::StrCat("cannot start \"", name, "\""), exit_code.status());
}

absl::StatusOr<int> AttachTo(Context& context, const Arguments& arguments,
                             const std::string& name) {
  engine::v1::AttachContainerRequest request;
  engine::v1::AttachAddress address;
  request.set_container(name);
  ASSIGN_OR_RETURN(engine::v1::ContainerDetails details, InspectOne(context, name));
  RETURN_IF_ERROR(context.suite().Call("engine", kAttach, request, &address));
  SessionOptions options = OptionsFor(details, !arguments.Is("no-stdin"));
  RETURN_IF_ERROR(CheckTerminal(context, options.tty, options.want_stdin));
  ASSIGN_OR_RETURN(options.detach_keys, DetachKeys(context, arguments));
  if (arguments.Is("sig-proxy", true) && !options.tty) {
    options.send_signal = SignalSender(context, details.id());
  }
  ASSIGN_OR_RETURN(JoinedEnd end, Join(context, details.id(), address, options));
  return end.exit_code;
}

int Attach(Context& context, const Arguments& arguments) {
  const std::string& name = arguments.positional()[0];
  absl::StatusOr<int> exit_code = AttachTo(context, arguments, name);
  if (exit_code.ok()) return *exit_code;
  return context.Fail(absl::StrCat("cannot attach to \"", name, "\""), exit_code.status());
}

constexpr FlagSpec kStartFlags[] = {
    {"attach", 'a', FlagKind::kSwitch, "", "Attach to the output, and forward signals"},
    {"detach-keys", 0, FlagKind::kText, "string", "Keys that leave the container running"},
    {"interactive", 'i', FlagKind::kSwitch, "", "Attach to the container's stdin"},
    {"sig-proxy", 0, FlagKind::kSwitch, "", "Hand received signals to the program (default true)"},
};
constexpr FlagSpec kAttachFlags[] = {
    {"detach-keys", 0, FlagKind::kText, "string", "Keys that leave the container running"},
    {"no-stdin", 0, FlagKind::kSwitch, "", "Do not attach to stdin"},
    {"sig-proxy", 0, FlagKind::kSwitch, "", "Hand received signals to the program (default true)"},
};
}  // namespace

absl::Span<const CommandSpec> AttachCommands() {
  static const CommandSpec kCommands[] = {
      {"start", "[OPTIONS] CONTAINER [CONTAINER...]", "Start stopped containers", kStartFlags, 1,
       -1, false, "gantryctl start -a job", Start},
      {"attach", "[OPTIONS] CONTAINER", "Join the streams of a running container", kAttachFlags, 1,
       1, false, "gantryctl attach web", Attach},
  };
  return kCommands;
}

}  // namespace gantry::ctl
