// What a Container holds in memory. The operations on it are one file each: start.cc, exec.cc,
// kill.cc, delete.cc, and container.cc for the small ones.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "lib/cgroup/cgroup.h"
#include "lib/oci/spec.h"
#include "lib/sys/unique_fd.h"
#include "runtime/record.h"
#include "runtime/runtime.h"
#include "runtime/seccomp.h"

namespace gantry::runtime {

class Container::Impl {
 public:
  std::string directory;
  Record record;
  cgroup::Cgroup cgroup;
  sys::UniqueFd pidfd;
  sys::UniqueFd console;
  sys::UniqueFd start_end;  // Only the creator of an init that others do not start has it.
  // What exec and hooks need. After Create without the parts that only a creation reads (`slim`): a
  // shim holds this for as long as its container lives.
  mutable std::optional<oci::Spec> spec;
  mutable bool slim = false;
  std::optional<SeccompFilter> filter;  // Compiled at Create; after Load made on demand.
  std::vector<Timing> timings;
  bool never_ran = false;  // The creation died before there was an init.

  // Reads the configuration as it was at Create, unless it is there.
  absl::Status LoadSpec() const;
  absl::StatusOr<Status> GetStatus() const;
  State MakeState(Status status) const;
  // A datagram socket to the init that waits for others' start. Errors: NotFound, Unavailable — it
  // does not wait (any more).
  absl::StatusOr<sys::UniqueFd> ReachInit() const;
  bool InitListens() const;
  // SIGKILL to all that may be left, and waits for init's end. Errors: DeadlineExceeded.
  absl::Status KillAndWait();
};

inline std::string ContainerDirectory(const std::string& state_root, const std::string& id) {
  return absl::StrCat(state_root, "/", id);
}

// What is left of `record` when `status` and `pid` are known; `state` prints it and hooks read it.
State MakeState(const Record& record, Status status, pid_t pid);

}  // namespace gantry::runtime
