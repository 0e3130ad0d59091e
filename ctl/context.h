// What every command is given: the suite, where to print, and how to report errors.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ctl/console.h"
#include "ctl/suite.h"

namespace gantry::ctl {

// Exit codes (E.6).
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitRunFailed = 125;     // run: the engine, a flag or the image.
inline constexpr int kExitCannotInvoke = 126;  // run, exec: the program is there and cannot run.
inline constexpr int kExitNoProgram = 127;     // run, exec: there is no such program.

// Thread-compatible.
class Context {
 public:
  Context(Suite suite, int in_fd, int out_fd, int err_fd)
      : suite_(std::move(suite)), in_fd_(in_fd), out_(out_fd), err_(err_fd) {}

  Suite& suite() { return suite_; }
  int in_fd() const { return in_fd_; }
  Output& out() { return out_; }
  Output& err() { return err_; }

  // -D: errors tell their code.
  bool debug = false;
  // Errors as one JSON object a line (GANTRY_ERROR_FORMAT=json).
  bool json_errors = false;

  // The variable of the caller's environment, if it is set.
  std::optional<std::string> Environment(const std::string& name) const;

  // A line on stderr.
  void Note(absl::string_view line);

  // "gantryctl: ATTEMPT: why", and a hint where we know one (E.10). Answers kExitFailed, for
  // `return`.
  int Fail(absl::string_view attempt, const absl::Status& status);

  // Does `action` with every name; prints the name after success (when `echo`), the error
  // otherwise, and goes on. kExitFailed when one failed. `attempt` is "stop", "remove" …
  int ForEach(const std::vector<std::string>& names, absl::string_view attempt, bool echo,
              const std::function<absl::Status(const std::string&)>& action);

 private:
  Suite suite_;
  int in_fd_;
  Output out_;
  Output err_;
};

// What to do about an error, one clause without full stop; "" when we know nothing better than the
// message itself.
std::string HintFor(const absl::Status& status);

}  // namespace gantry::ctl
