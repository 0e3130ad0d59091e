// Turns the calling process into the one config.json describes, up to execve: limits, priorities,
// ids, capabilities, directory, program. Used by a container's init and by exec'd processes alike.
//
//   process_setup.cc     labels, ids, working directory, the last steps up to execve
//   process_limits.cc    rlimits, scheduling, memory policy, personality
//   capabilities.cc      the five sets
//   find_program.cc      args[0] in $PATH, the environment
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"
#include "runtime/runtime.h"
#include "runtime/seccomp.h"

namespace gantry::runtime {

struct ProcessPlan {
  const oci::Process* process = nullptr;
  const oci::Linux* linux_ = nullptr;     // For personality and memory policy; nullptr: none.
  const SeccompFilter* filter = nullptr;  // nullptr: none.
  bool user_namespace = false;
  bool keep_groups = false;  // Supplementary groups stay as they are.
  int kept_descriptors = 0;  // 3 … 3+N-1 stay open in the program.
  std::vector<std::string> extra_environment;
};

// Order: Label (while the host's /proc is still there), Limit, Become, FindProgram, Seal, Execute.
class ProcessSetup {
 public:
  explicit ProcessSetup(const ProcessPlan& plan) : plan_(plan) {}

  // AppArmor profile and SELinux label of the coming exec.
  absl::Status Label();
  // Resource limits, scheduling, memory policy, personality, umask.
  absl::Status Limit();
  // Bounding set, groups, ids, working directory. Effective capabilities are what the user has
  // then.
  absl::Status Become();
  // Looks args[0] up as the user. Errors as callers know them: `exec: "x": executable file not
  // found in $PATH` (NotFound), `… permission denied`.
  absl::Status FindProgram();
  // Marks all descriptors but the program's close-on-exec. Then capabilities as asked for, and,
  // without no_new_privileges, the seccomp filter before them. `listener` gets the notify
  // descriptor, if there is one.
  absl::Status Seal(sys::UniqueFd* listener);
  // Closes everything else, loads the filter if that is still to be done, executes. Returns only
  // errors.
  absl::Status Execute();

 private:
  absl::Status SetRlimits();
  absl::Status SetScheduling();
  absl::Status SetMemoryPolicy();
  absl::Status EnterWorkingDirectory();
  absl::Status LimitDescriptors();
  void MakeEnvironment();

  const ProcessPlan& plan_;
  std::vector<std::string> environment_;
  std::string program_;
  bool filter_loaded_ = false;
};

// Writes "0" to each, which moves this single-threaded process into the cgroup.
absl::Status JoinCgroups(const std::vector<sys::UniqueFd>& tasks);

// "0-3,7" as a CPU mask for this process. Errors: InvalidArgument.
absl::Status SetCpuAffinity(const std::string& list);

}  // namespace gantry::runtime
