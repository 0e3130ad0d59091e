// A child of ours, from its clone until it is handed over: whoever drops it kills and reaps it.
#pragma once

#include <sys/types.h>

#include "lib/sys/unique_fd.h"

namespace gantry::runtime {

// Whether the process behind `pidfd` has ended, be it reaped or not.
bool HasEnded(const sys::UniqueFd& pidfd);

// Waits for our child's end and takes its status. Fine when somebody else did.
void Reap(const sys::UniqueFd& pidfd);

// Move-only.
class NewProcess {
 public:
  NewProcess(pid_t pid, sys::UniqueFd pidfd);
  NewProcess(NewProcess&& other) noexcept;
  NewProcess& operator=(NewProcess&&) = delete;
  ~NewProcess();

  pid_t pid() const { return pid_; }
  const sys::UniqueFd& pidfd() const { return pidfd_; }

  // The first child ended after it made the real one.
  void Replace(pid_t pid, sys::UniqueFd pidfd);

  // From here on the caller reaps it.
  sys::UniqueFd Release();

 private:
  pid_t pid_;
  sys::UniqueFd pidfd_;
};

}  // namespace gantry::runtime
