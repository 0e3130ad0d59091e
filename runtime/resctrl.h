// Intel RDT (linux.intelRdt): a container's share of cache and memory bandwidth, through the
// resctrl file system. A group is a directory there with a `schemata` file; processes are moved
// into it by writing to `tasks`, and what they start stays in it.
//
//   group        <resctrl>/<closID>, or <id> without a closID; "/" is the root group
//   monitoring   <group>/mon_groups/<id>, with enableMonitoring
//
// Groups may be shared by containers of one closID: only who made a directory removes it.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/oci/spec.h"

namespace gantry::runtime {

// Absolute directories; an empty one is none. What is kept of it is in the record.
struct ResctrlPlan {
  std::string group, monitor;
  bool owned = false;  // The group is made for this container, and goes with it.

  bool empty() const { return group.empty(); }
};

// Where resctrl is mounted. Errors: FailedPrecondition — nowhere, with what to do.
absl::StatusOr<std::string> FindResctrl();

// Changes nothing. Errors: InvalidArgument "linux.intelRdt.closID" — a group that is to be joined
// as it is, is not there; FailedPrecondition — it is there with other schemata. Source: runtime
// specification, config-linux, "IntelRdt".
absl::StatusOr<ResctrlPlan> PlanResctrl(const oci::IntelRdt& rdt, const std::string& id,
                                        const std::string& resctrl);

// Makes the directories of `plan` and writes the schemata. On failure nothing is left behind.
absl::Status MakeResctrl(const oci::IntelRdt& rdt, const ResctrlPlan& plan);

// Moves a process that has one thread.
absl::Status JoinResctrl(const ResctrlPlan& plan, pid_t pid);

// Replaces lines of the group's schemata. An empty string changes nothing.
absl::Status UpdateResctrl(const ResctrlPlan& plan, absl::string_view l3_cache_schema,
                           absl::string_view mem_bw_schema);

// Fine when they are gone.
absl::Status RemoveResctrl(const ResctrlPlan& plan);

}  // namespace gantry::runtime
