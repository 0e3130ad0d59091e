// Waiting for a program in the foreground: its exit code becomes ours, our signals become its.
#pragma once

#include "absl/status/statusor.h"
#include "lib/sys/unique_fd.h"

namespace gantry::runtime {

// Blocks the signals that are to be passed on, so that none is lost before Wait. The programs
// started afterwards begin with none blocked all the same.
class Foreground {
 public:
  absl::Status Begin();

  // Waits until the process of `pidfd`, our child, has ended, and reaps it. With `console`, copies
  // between our terminal, put into raw mode meanwhile, and the master. Returns its exit code, or
  // 128 + N.
  absl::StatusOr<int> Wait(const sys::UniqueFd& pidfd, const sys::UniqueFd& console);

 private:
  sys::UniqueFd signals_;
};

}  // namespace gantry::runtime
