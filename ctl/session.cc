#include "ctl/session.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ctl/detach_keys.h"
#include "ctl/terminal.h"
#include "lib/attach/client.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/unique_fd.h"

namespace gantry::ctl {
namespace {

constexpr size_t kReadBytes = 32 << 10;
// Docker's way out of a program that ignores ctrl-C.
constexpr int kForceAfter = 3;
constexpr auto kForceWithin = std::chrono::seconds(2);

// What a session takes: all that can be caught, apart from what says that we are broken (SEGV …),
// job control, which belongs to the caller's shell, and CHLD, PIPE, URG, which concern nobody else.
constexpr int kSessionSignals[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM,   SIGUSR1,
                                   SIGUSR2, SIGALRM, SIGPROF, SIGVTALRM, SIGIO,
                                   SIGPWR,  SIGXCPU, SIGXFSZ, SIGWINCH};

sigset_t SessionSignals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : kSessionSignals) {
    // What the caller ignores (nohup, a shell's background job) stays ignored.
    struct sigaction current = {};
    if (signal != SIGWINCH && ::sigaction(signal, nullptr, &current) == 0 &&
        current.sa_handler == SIG_IGN) {
      continue;
    }
    ::sigaddset(&signals, signal);
  }
  return signals;
}

bool IsInterrupt(int signal) { return signal == SIGINT || signal == SIGTERM; }

// Lives for one RunSession.
class Session {
 public:
  Session(Context& context, const SessionOptions& options, std::unique_ptr<attach::Client> client)
      : context_(context),
        options_(options),
        client_(std::move(client)),
        watch_(options.tty ? options.detach_keys : std::string()) {}

  absl::StatusOr<SessionResult> Run() {
    const sigset_t signals = SessionSignals();
    signals_ = sys::UniqueFd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_.ok()) return sys::ErrnoError(errno, "watch for signals");
    stdin_open_ = options_.want_stdin;
    // Output may have come together with the shim's answer to the hello: poll() would not tell of
    // it.
    RETURN_IF_ERROR(TakeEvents());
    while (!result_) {
      RETURN_IF_ERROR(Step());
    }
    return *result_;
  }

 private:
  absl::Status Step() {
    // No input is read while the shim is slow to take it: the pipe behind us is the buffer.
    const bool read_input = stdin_open_ && !client_->wants_write();
    pollfd waiting[] = {
        {client_->fd(), static_cast<short>(POLLIN | (client_->wants_write() ? POLLOUT : 0)), 0},
        {signals_.get(), POLLIN, 0},
        {read_input ? context_.in_fd() : -1, POLLIN, 0},
    };
    if (::poll(waiting, 3, -1) < 0) {
      if (errno == EINTR) return absl::OkStatus();
      return sys::ErrnoError(errno, "wait for the container's streams");
    }
    if (waiting[1].revents != 0) TakeSignals();
    if (waiting[2].revents != 0 && !result_) TakeInput();
    if (waiting[0].revents != 0 && !result_) {
      RETURN_IF_ERROR(client_->OnReady());
      return TakeEvents();
    }
    return absl::OkStatus();
  }

  absl::Status TakeEvents() {
    attach::Event event;
    while (!result_) {
      ASSIGN_OR_RETURN(bool got, client_->Next(&event));
      if (!got) break;
      switch (event.kind) {
        case attach::Event::Kind::kStdout:
          context_.out().Write(event.bytes);
          context_.out().Flush();
          break;
        case attach::Event::Kind::kStderr:
          context_.err().Write(event.bytes);
          context_.err().Flush();
          break;
        case attach::Event::Kind::kLost:
          context_.Note(absl::StrCat("gantryctl: ", event.lost_bytes,
                                     " bytes of output were not shown: the reader was too slow"));
          break;
        case attach::Event::Kind::kExit:
          result_ = SessionResult{SessionResult::Kind::kExited, event.exit.code};
          break;
        case attach::Event::Kind::kClosed:
          result_ = SessionResult{SessionResult::Kind::kLost, 0};
          break;
      }
    }
    return absl::OkStatus();
  }

  void TakeInput() {
    char buffer[kReadBytes];
    const ssize_t count = ::read(context_.in_fd(), buffer, sizeof buffer);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (count <= 0) {  // The end, or a stdin that cannot be read: both mean no more input.
      stdin_open_ = false;
      client_->CloseStdin();
      return;
    }
    std::string forward;
    const bool leave = watch_.Feed(absl::string_view(buffer, static_cast<size_t>(count)), &forward);
    if (!forward.empty()) client_->SendStdin(forward);
    if (leave) {
      client_->Detach();
      result_ = SessionResult{SessionResult::Kind::kDetached, 0};
    }
  }

  void TakeSignals() {
    signalfd_siginfo info;
    while (!result_ && ::read(signals_.get(), &info, sizeof info) == sizeof info) {
      TakeSignal(static_cast<int>(info.ssi_signo));
    }
  }

  void TakeSignal(int signal) {
    if (signal == SIGWINCH) {
      if (!options_.tty) return;
      if (auto size = GetWindowSize(context_.in_fd())) client_->Resize(size->columns, size->rows);
      return;
    }
    if (!options_.send_signal) {
      result_ = SessionResult{SessionResult::Kind::kKilled, 128 + signal};
      return;
    }
    if (IsInterrupt(signal) && ForcedOut()) {
      context_.Note("gantryctl: got 3 interrupts in a row, leaving; the container may still run");
      result_ = SessionResult{SessionResult::Kind::kKilled, kExitFailed};
      return;
    }
    options_.send_signal(signal);
  }

  // Whether this interrupt is the third within a short time.
  bool ForcedOut() {
    const auto now = std::chrono::steady_clock::now();
    if (interrupts_ == 0 || now - first_interrupt_ > kForceWithin) {
      interrupts_ = 0;
      first_interrupt_ = now;
    }
    return ++interrupts_ >= kForceAfter;
  }

  Context& context_;
  const SessionOptions& options_;
  std::unique_ptr<attach::Client> client_;
  DetachWatch watch_;
  sys::UniqueFd signals_;
  bool stdin_open_ = false;
  int interrupts_ = 0;
  std::chrono::steady_clock::time_point first_interrupt_;
  std::optional<SessionResult> result_;
};

}  // namespace

void PrepareSignals() {
  const sigset_t signals = SessionSignals();
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
}

void ReleaseSignals() {
  const sigset_t signals = SessionSignals();
  ::sigprocmask(SIG_UNBLOCK, &signals, nullptr);
}

Size CallerWindow(Context& context) {
  const std::optional<WindowSize> size = GetWindowSize(context.in_fd());
  if (!size) return {};
  return {size->rows, size->columns};
}

absl::StatusOr<SessionResult> RunSession(Context& context, const engine::v1::AttachAddress& address,
                                         const SessionOptions& options) {
  attach::Hello hello;
  hello.container_id = address.container_id();
  hello.exec_id = address.exec_id();
  hello.want_stdin = options.want_stdin;
  hello.want_stdout = options.want_stdout;
  hello.want_stderr = options.want_stderr;
  hello.flow_control = options.flow_control;
  hello.close_stdin_at_end = options.close_stdin_at_end;
  if (options.tty) {
    const Size size = CallerWindow(context);
    hello.columns = static_cast<uint16_t>(size.columns);
    hello.rows = static_cast<uint16_t>(size.rows);
  }
  PrepareSignals();
  context.out().Flush();
  ASSIGN_OR_RETURN(std::unique_ptr<attach::Client> client,
                   attach::Client::Connect(address.socket_path(), hello));
  std::optional<RawMode> raw;
  if (options.tty && options.want_stdin && ::isatty(context.in_fd()) == 1) {
    ASSIGN_OR_RETURN(RawMode entered, RawMode::Enter(context.in_fd()));
    raw.emplace(std::move(entered));
  }
  return Session(context, options, std::move(client)).Run();
}

}  // namespace gantry::ctl
