// The whole suite, started by a test below a directory of its own.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/sys/process.h"
#include "lib/sys/temp_dir.h"
#include "tests/support/command.h"

namespace gantry::testing {

// Folder of the built programs ($GANTRY_BIN) and of the source tree ($GANTRY_SOURCE).
std::string BinDirectory();
std::string SourceDirectory();

// Starts every process and stops it again, killing what does not stop. Thread-compatible.
class Suite {
 public:
  // `configuration` is gantry.toml without its first line; `environment` goes to every process.
  static absl::StatusOr<std::unique_ptr<Suite>> Start(const std::string& configuration = "",
                                                      std::vector<std::string> environment = {});
  ~Suite();

  const std::string& root() const { return root_.path(); }
  std::string run() const { return root() + "/run"; }
  std::string state() const { return root() + "/lib"; }
  // "unix://…/run/gantry.sock".
  std::string host() const;

  // gantryctl with these arguments against this suite.
  CommandResult Ctl(std::vector<std::string> arguments, CommandOptions options = {}) const;

  // Expects that `gantryctl system audit` finds nothing; otherwise fails the test with its report.
  void ExpectNoLeaks() const;

  pid_t Pid(const std::string& process) const;

  // SIGKILL and reap. The containers stay.
  void Kill(const std::string& process);

  // Starts a process again (or for the first time) and waits until it serves.
  absl::Status Launch(const std::string& process);

  // SIGTERM, and waits for a clean exit.
  absl::StatusOr<sys::ExitStatus> Stop(const std::string& process);

  // The end of a process' log.
  std::string Log(const std::string& process) const;

  static const std::vector<std::string>& Processes();

 private:
  Suite(sys::TempDir root, std::vector<std::string> environment)
      : root_(std::move(root)), environment_(std::move(environment)) {}

  sys::TempDir root_;
  std::vector<std::string> environment_;
  std::map<std::string, sys::Child> children_;
};

}  // namespace gantry::testing
