// A person (or a script) joined to the streams of a process: run, start -a, attach and exec.
//
// Bytes go straight between our descriptors and the shim (docs/formats/attach.md). With a terminal
// it is in raw mode, its size follows the window, and the detach keys leave. Without one, signals
// that reach us are handed to the process, and the two output streams stay apart.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ctl/context.h"
#include "gantry/engine/v1/engine.pb.h"

namespace gantry::ctl {

struct SessionOptions {
  bool want_stdin = false;
  bool want_stdout = true;
  bool want_stderr = true;
  // The process has a terminal; ours goes to raw mode when stdin is wanted and is a terminal.
  bool tty = false;
  // The process waits for our reader instead of losing output (run and exec, not attach).
  bool flow_control = false;
  // The process' stdin ends with this connection.
  bool close_stdin_at_end = false;
  // As bytes (ParseDetachKeys); only with tty. Empty: none.
  std::string detach_keys;
  // Sends a signal to the process; empty: signals are not proxied and end us.
  std::function<void(int)> send_signal;
};

struct SessionResult {
  enum class Kind {
    kExited,    // `exit_code` is the program's.
    kDetached,  // By the keys: it goes on.
    kLost,      // The shim's connection broke: ask the engine how it ended.
    kKilled,    // A signal for us, not proxied, or three quick ones; `exit_code` is ours.
  };
  Kind kind = Kind::kLost;
  int exit_code = 0;
};

// Blocks the signals a session takes, from now on: called before the process is started, so that an
// early ctrl-C is neither lost nor deadly to us alone. Idempotent.
void PrepareSignals();

// The opposite: they end us again.
void ReleaseSignals();

// The window size of the caller's terminal for a request; zeros when there is none.
struct Size {
  uint32_t rows = 0;
  uint32_t columns = 0;
};
Size CallerWindow(Context& context);

// Joins until the process ends, the person leaves or the connection breaks. Errors: those of
// connecting to the shim. The terminal is as before in any case.
absl::StatusOr<SessionResult> RunSession(Context& context, const engine::v1::AttachAddress& address,
                                         const SessionOptions& options);

}  // namespace gantry::ctl
