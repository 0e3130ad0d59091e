// run and create: a new container, and with run a person joined to its program.

#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ctl/commands/commands.h"
#include "ctl/commands/joining.h"
#include "ctl/commands/pull.h"
#include "ctl/container_flags.h"
#include "ctl/run_clock.h"
#include "ctl/session.h"
#include "gantry/engine/v1/engine.pb.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/file.h"

namespace gantry::ctl {
namespace {

constexpr char kCreate[] = "/gantry.engine.v1.Containers/Create";

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
  };
  return kCommands;
}

}  // namespace gantry::ctl
