// exec: a further program in a running container.

#include <utility>

#include "absl/strings/str_cat.h"
#include "ctl/commands/commands.h"
#include "ctl/commands/joining.h"
#include "ctl/container_flags.h"
#include "ctl/session.h"
#include "gantry/engine/v1/engine.pb.h"
#include "lib/base/status.h"

namespace gantry::ctl {
namespace {

constexpr char kExec[] = "/gantry.engine.v1.Containers/Exec";
constexpr char kWaitExec[] = "/gantry.engine.v1.Containers/WaitExec";

absl::StatusOr<int> ExecIn(Context& context, const Arguments& arguments) {
  const std::vector<std::string>& words = arguments.positional();
  engine::v1::ExecRequest request;
  engine::v1::ExecResponse response;
  request.set_container(words[0]);
  for (size_t i = 1; i < words.size(); ++i) request.add_command(words[i]);
  ASSIGN_OR_RETURN(std::vector<std::string> variables,
                   BuildEnvironment(arguments, [&](const std::string& name) {
                     return context.Environment(name);
                   }));
  for (std::string& variable : variables) request.add_env(std::move(variable));
  request.set_user(arguments.Text("user"));
  request.set_working_dir(arguments.Text("workdir"));
  request.set_privileged(arguments.Is("privileged"));
  request.set_tty(arguments.Is("tty"));
  request.set_open_stdin(arguments.Is("interactive"));
  request.set_detach(arguments.Is("detach"));
  SessionOptions options;
  options.tty = request.tty();
  options.want_stdin = request.open_stdin();
  options.flow_control = true;
  options.close_stdin_at_end = options.want_stdin;
  ASSIGN_OR_RETURN(options.detach_keys, DetachKeys(context, arguments));
  if (!request.detach()) RETURN_IF_ERROR(CheckTerminal(context, options.tty, options.want_stdin));
  if (request.tty()) {
    const Size window = CallerWindow(context);
    request.set_tty_rows(window.rows);
    request.set_tty_columns(window.columns);
  }
  RETURN_IF_ERROR(context.suite().Call("engine", kExec, request, &response, kSlowCall));
  if (request.detach()) return kExitOk;
  ASSIGN_OR_RETURN(SessionResult result, RunSession(context, response.attach(), options));
  if (result.kind != SessionResult::Kind::kLost) return result.exit_code;
  engine::v1::WaitExecRequest wait;
  engine::v1::WaitExecResponse ended;
  wait.set_container(words[0]);
  wait.set_exec_id(response.exec_id());
  RETURN_IF_ERROR(
      context.suite().Call("engine", kWaitExec, wait, &ended, absl::InfiniteDuration()));
  return ended.exit_code();
}

int Exec(Context& context, const Arguments& arguments) {
  absl::StatusOr<int> exit_code = ExecIn(context, arguments);
  if (exit_code.ok()) return *exit_code;
  context.Fail(absl::StrCat("cannot exec in \"", arguments.positional()[0], "\""),
               exit_code.status());
  const int code = StartFailureCode(exit_code.status());
  return code == kExitRunFailed ? kExitFailed : code;
}

constexpr FlagSpec kExecFlags[] = {
    {"detach", 'd', FlagKind::kSwitch, "", "Run in the background"},
    {"detach-keys", 0, FlagKind::kText, "string", "Keys that leave the program running"},
    {"env", 'e', FlagKind::kList, "list", "Set environment variables"},
    {"env-file", 0, FlagKind::kList, "list", "Read environment variables from a file"},
    {"interactive", 'i', FlagKind::kSwitch, "", "Keep stdin open"},
    {"privileged", 0, FlagKind::kSwitch, "", "Give extended privileges to the program"},
    {"tty", 't', FlagKind::kSwitch, "", "Allocate a pseudo terminal"},
    {"user", 'u', FlagKind::kText, "string", "User, name or id (user[:group])"},
    {"workdir", 'w', FlagKind::kText, "string", "Working directory of the program"},
};

}  // namespace

absl::Span<const CommandSpec> ExecCommands() {
  static const CommandSpec kCommands[] = {
      {"exec", "[OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container",
       kExecFlags, 2, -1, true,
       "gantryctl exec -it web sh\n"
       "gantryctl exec -u 1000 web id",
       Exec},
  };
  return kCommands;
}

}  // namespace gantry::ctl
