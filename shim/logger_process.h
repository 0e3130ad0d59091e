// The program that takes a container's output (`binary://`, contracts/containerd 5.9).
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "lib/sys/unique_fd.h"
#include "shim/reaper.h"
#include "shim/stdio_uri.h"

namespace gantry::shim {

// A pipe of a program, both ends close-on-exec.
struct Pipe {
  sys::UniqueFd read_end, write_end;
};
// Owned by `uid` and `gid`, so that a program that is not root can open it again by /proc/self/fd.
absl::StatusOr<Pipe> MakePipe(uint32_t uid, uint32_t gid);

// Runs until its pipes are closed. Its destructor gives it five seconds for that, then asks it to
// end, and kills it twelve seconds later; it does not wait. Single-threaded.
class LoggerProcess {
 public:
  struct Options {
    std::string ns, container_id;  // For its environment.
    uint32_t uid = 0, gid = 0;     // Owner of its pipes.
  };
  // Waits for up to ten seconds until the logger says that it is ready: for the end of its
  // descriptor 5 (`binary://`), or a byte there (`binary-v2://`). Errors: Unavailable — it did not.
  static absl::StatusOr<std::unique_ptr<LoggerProcess>> Start(Reaper& reaper, const StdioUri& uri,
                                                              const Options& options);
  ~LoggerProcess();
  LoggerProcess(const LoggerProcess&) = delete;
  LoggerProcess& operator=(const LoggerProcess&) = delete;

  // Write ends, once: the program writes into the logger's pipes itself.
  sys::UniqueFd TakeStdout() { return std::move(stdout_); }
  sys::UniqueFd TakeStderr() { return std::move(stderr_); }

 private:
  explicit LoggerProcess(Reaper& reaper) : reaper_(reaper) {}
  absl::Status Spawn(const StdioUri& uri, const Options& options, sys::UniqueFd* ready);

  Reaper& reaper_;
  pid_t pid_ = 0;
  sys::UniqueFd pidfd_;
  sys::UniqueFd stdout_, stderr_;
};

}  // namespace gantry::shim
