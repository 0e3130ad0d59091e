// A program on a pseudo terminal, for tests of -t: type, read, resize.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lib/sys/process.h"

namespace gantry::testing {

// The program is killed when this goes. Thread-compatible.
class PtyProgram {
 public:
  static absl::StatusOr<PtyProgram> Start(std::vector<std::string> argv,
                                          std::vector<std::string> environment, int rows,
                                          int columns);

  void Type(const std::string& keys);
  void Resize(int rows, int columns);

  // Reads until the output contains `text`. False: it did not, within the timeout; see output().
  bool Expect(const std::string& text, absl::Duration timeout = absl::Seconds(20));

  // Waits for the end of the program.
  absl::StatusOr<sys::ExitStatus> Wait(absl::Duration timeout = absl::Seconds(20));

  // All that was read so far.
  const std::string& output() const { return output_; }

  // Whether the terminal echoes and edits lines, as it did before a program made it raw.
  bool IsCooked() const;

 private:
  sys::UniqueFd master_;
  sys::UniqueFd slave_;  // Kept open, so that the terminal's settings outlive the program.
  sys::Child child_;
  std::string output_;
  size_t seen_ = 0;
};

}  // namespace gantry::testing
