// Programs run by tests: output, exit code, and never longer than a deadline.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace gantry::testing {

struct CommandOptions {
  std::string input;                     // Given on stdin, which then ends.
  std::vector<std::string> environment;  // Added to PATH and HOME.
  std::string working_directory;
  absl::Duration timeout = absl::Seconds(60);
};

struct CommandResult {
  int code = -1;  // As a shell shows it; -1: could not start, or ran out of time (see err).
  std::string out;
  std::string err;
};

// argv[0] is looked up in PATH when it has no slash.
CommandResult RunCommand(std::vector<std::string> argv, const CommandOptions& options = {});

// RunCommand of `/bin/sh -c script`.
CommandResult RunShell(const std::string& script, const CommandOptions& options = {});

std::ostream& operator<<(std::ostream& stream, const CommandResult& result);

}  // namespace gantry::testing
