// run, create, start, attach, exec: everything that joins a person to a program.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ctl/commands/commands.h"
#include "ctl/commands/pull.h"
#include "ctl/container_flags.h"
#include "ctl/detach_keys.h"
#include "ctl/run_clock.h"
#include "ctl/session.h"
#include "gantry/engine/v1/engine.pb.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/file.h"

namespace gantry::ctl {
namespace {

constexpr char kCreate[] = "/gantry.engine.v1.Containers/Create";
constexpr char kStart[] = "/gantry.engine.v1.Containers/Start";
constexpr char kAttach[] = "/gantry.engine.v1.Containers/Attach";
constexpr char kExec[] = "/gantry.engine.v1.Containers/Exec";
constexpr char kKill[] = "/gantry.engine.v1.Containers/Kill";
constexpr char kWait[] = "/gantry.engine.v1.Containers/Wait";
constexpr char kWaitExec[] = "/gantry.engine.v1.Containers/WaitExec";
constexpr char kInspect[] = "/gantry.engine.v1.Containers/Inspect";

// How long a signal may take to be delivered before we go back to copying bytes.
constexpr absl::Duration kSignalCall = absl::Seconds(5);

// Docker's code for a container that could not be started: the program, not the engine, is at fault
// in the first two cases (E.6).
int StartFailureCode(const absl::Status& status) {
  if (!absl::IsFailedPrecondition(status) && !absl::IsNotFound(status) &&
      !absl::IsPermissionDenied(status)) {
    return kExitRunFailed;
  }
  const std::string message(status.message());
  if (absl::StrContains(message, "executable file not found")) return kExitNoProgram;
  for (const char* reason : {"permission denied", "Permission denied", "exec format error",
                             "Exec format error", "is a directory", "Is a directory"}) {
    if (absl::StrContains(message, reason)) return kExitCannotInvoke;
  }
  return kExitRunFailed;
}

bool IsMissingImage(const absl::Status& status) {
  return absl::IsNotFound(status) && absl::StrContains(status.message(), "Unable to find image");
}

// --cidfile: reserved before the container is made, since an existing file is an error and must not
// leave a container behind; removed again when nothing was made.
class IdFile {
 public:
  static absl::StatusOr<IdFile> Reserve(const std::string& path) {
    IdFile file;
    if (path.empty()) return file;
    ASSIGN_OR_RETURN(file.fd_, sys::Open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0644));
    file.path_ = path;
    return file;
  }
  IdFile(IdFile&& other) noexcept
      : fd_(std::move(other.fd_)), path_(std::exchange(other.path_, std::string())) {}
  IdFile& operator=(IdFile&&) = delete;
  ~IdFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  absl::Status Keep(const std::string& id) {
    if (path_.empty()) return absl::OkStatus();
    path_.clear();
    return sys::WriteAll(fd_, id);
  }

 private:
  IdFile() = default;
  sys::UniqueFd fd_;
  std::string path_;
};

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

// What a joined session means for our own exit code.
struct JoinedEnd {
  int exit_code = 0;
  bool program_ended = false;
};

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

// Which streams -a names. None given: all of them (stdin when -i).
absl::Status ChooseStreams(const Arguments& arguments, SessionOptions* options) {
  options->want_stdin = arguments.Is("interactive");
  if (!arguments.Has("attach")) return absl::OkStatus();
  options->want_stdin = options->want_stdout = options->want_stderr = false;
  for (const std::string& stream : arguments.List("attach")) {
    const std::string name = absl::AsciiStrToLower(stream);
    if (name == "stdin") {
      options->want_stdin = true;
    } else if (name == "stdout") {
      options->want_stdout = true;
    } else if (name == "stderr") {
      options->want_stderr = true;
    } else {
      return absl::InvalidArgumentError(absl::StrCat("invalid stream '", EscapeForTerminal(stream),
                                                     "' of --attach: use stdin, stdout or stderr"));
    }
  }
  return absl::OkStatus();
}

// A terminal in the container and none here cannot work, if keys are to reach it.
absl::Status CheckTerminal(Context& context, bool tty, bool want_stdin) {
  if (tty && want_stdin && ::isatty(context.in_fd()) != 1) {
    return absl::FailedPreconditionError("the input device is not a TTY");
  }
  return absl::OkStatus();
}

// One `run` or `create` from its arguments to its exit code. Lives for one command.
class Creation {
 public:
  Creation(Context& context, const Arguments& arguments, bool run)
      : context_(context),
        arguments_(arguments),
        run_(run),
        detached_(!run || arguments.Is("detach")) {}

  int Run() {
    absl::Status prepared = Prepare();
    if (!prepared.ok()) return Fail(prepared, kExitRunFailed);
    absl::StatusOr<IdFile> id_file = IdFile::Reserve(arguments_.Text("cidfile"));
    if (!id_file.ok()) return Fail(Annotate(id_file.status(), "--cidfile"), kExitRunFailed);
    const absl::Status created = CreateWithImage();
    if (!created.ok()) return Fail(created, run_ ? StartFailureCode(created) : kExitFailed);
    const absl::Status kept = id_file->Keep(response_.id());
    if (!kept.ok()) context_.Fail("cannot write --cidfile", kept);
    for (const std::string& warning : response_.warnings()) {
      context_.Note(absl::StrCat("WARNING: ", EscapeForTerminal(warning)));
    }
    if (detached_) {
      context_.out().Write(absl::StrCat(response_.id(), "\n"));
      PrintTimings();
      return kExitOk;
    }
    return Attend();
  }

 private:
  int Fail(const absl::Status& status, int exit_code) {
    context_.Fail(
        absl::StrCat("cannot ", run_ ? "run" : "create", " \"",
                     arguments_.positional().empty() ? "" : arguments_.positional()[0], "\""),
        status);
    return exit_code;
  }

  absl::Status Prepare() {
    ASSIGN_OR_RETURN(*request_.mutable_config(),
                     BuildConfig(arguments_, [this](const std::string& name) {
                       return context_.Environment(name);
                     }));
    const std::string pull = arguments_.Text("pull", "missing");
    if (pull != "always" && pull != "missing" && pull != "never") {
      return absl::InvalidArgumentError(absl::StrCat("invalid value '", EscapeForTerminal(pull),
                                                     "' of --pull: use always, missing or never"));
    }
    if (!run_) return absl::OkStatus();
    if (detached_ && arguments_.Has("attach")) {
      return absl::InvalidArgumentError("--detach and --attach cannot be combined");
    }
    request_.set_start(true);
    const bool tty = request_.config().tty();
    RETURN_IF_ERROR(ChooseStreams(arguments_, &session_));
    if (!detached_) {
      RETURN_IF_ERROR(CheckTerminal(context_, tty, session_.want_stdin));
      request_.mutable_config()->set_attach(true);
      session_.tty = tty;
      session_.flow_control = true;
      session_.close_stdin_at_end = session_.want_stdin && !tty;
      ASSIGN_OR_RETURN(session_.detach_keys, DetachKeys(context_, arguments_));
    }
    if (tty) {
      const Size window = CallerWindow(context_);
      request_.set_tty_rows(window.rows);
      request_.set_tty_columns(window.columns);
    }
    return absl::OkStatus();
  }

  absl::Status Pull() {
    PullOptions options;
    options.reference = request_.config().image();
    options.platform = arguments_.Text("platform");
    options.quiet = arguments_.Is("quiet");
    // Progress belongs on stderr here: stdout is the program's.
    return PullImage(context_, options, context_.err(), nullptr);
  }

  absl::Status Create() {
    if (!detached_) PrepareSignals();
    // Also for a call that fails: the steps printed are those of the call that did not.
    auto timed = absl::MakeCleanup([this] { clock_.Step("request", response_.timings()); });
    return context_.suite().Call("engine", kCreate, request_, &response_, kSlowCall);
  }

  absl::Status CreateWithImage() {
    const std::string pull = arguments_.Text("pull", "missing");
    clock_.StartOfProcess("client");
    if (pull == "always") {
      RETURN_IF_ERROR(Pull());
      clock_.Step("pull");
    }
    const absl::Status status = Create();
    if (!IsMissingImage(status) || pull != "missing") return status;
    // The signals a session takes end us while we pull: nothing of the container is there yet.
    context_.Note(EscapeForTerminal(status.message()));
    ReleaseSignals();
    RETURN_IF_ERROR(Pull());
    clock_.Step("pull");
    return Create();
  }

  int Attend() {
    // On a terminal ctrl-C is a byte; a signal for us then is meant for us.
    if (arguments_.Is("sig-proxy", true) && !session_.tty) {
      session_.send_signal = SignalSender(context_, response_.id());
    }
    absl::StatusOr<JoinedEnd> end = Join(context_, response_.id(), response_.attach(), session_);
    if (!end.ok()) return Fail(end.status(), kExitRunFailed);
    clock_.Step("session");
    if (end->program_ended && request_.config().auto_remove()) AwaitRemoval();
    PrintTimings();
    return end->exit_code;
  }

  // Whoever runs with --rm twice under one name wants the first one gone.
  void AwaitRemoval() {
    const absl::StatusOr<engine::v1::WaitContainerResponse> removed =
        WaitFor(context_, response_.id(), engine::v1::WaitContainerRequest::REMOVED);
    clock_.Step("removal", removed.ok() ? removed->timings() : StepTimings());
    if (!removed.ok() && !absl::IsNotFound(removed.status())) {
      context_.Fail(absl::StrCat("cannot tell whether \"", response_.name(), "\" was removed"),
                    removed.status());
    }
  }

  void PrintTimings() {
    if (!arguments_.Is("timing")) return;
    context_.err().Write(clock_.Table());
    context_.err().Flush();
  }

  Context& context_;
  const Arguments& arguments_;
  bool run_;
  bool detached_;
  engine::v1::CreateContainerRequest request_;
  engine::v1::CreateContainerResponse response_;
  SessionOptions session_;
  RunClock clock_;
};

int Run(Context& context, const Arguments& arguments) {
  return Creation(context, arguments, true).Run();
}

int Create(Context& context, const Arguments& arguments) {
  return Creation(context, arguments, false).Run();
}

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

absl::Span<const CommandSpec> RunCommands() {
  static const CommandSpec kCommands[] = {
      {"run", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image",
       RunFlags(), 1, -1, true,
       "gantryctl run --rm -it busybox sh\n"
       "gantryctl run -d --name web -p 8080:80 nginx\n"
       "gantryctl run --rm -v \"$PWD:/src\" -w /src gcc make",
       Run},
      {"create", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", CreateFlags(), 1,
       -1, true, "gantryctl create --name job busybox echo hello", Create},
      {"start", "[OPTIONS] CONTAINER [CONTAINER...]", "Start stopped containers", kStartFlags, 1,
       -1, false, "gantryctl start -a job", Start},
      {"attach", "[OPTIONS] CONTAINER", "Join the streams of a running container", kAttachFlags, 1,
       1, false, "gantryctl attach web", Attach},
      {"exec", "[OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container",
       kExecFlags, 2, -1, true,
       "gantryctl exec -it web sh\n"
       "gantryctl exec -u 1000 web id",
       Exec},
  };
  return kCommands;
}

}  // namespace gantry::ctl
