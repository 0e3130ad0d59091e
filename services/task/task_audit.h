// Compares the supervisor's tasks with bundles, sockets, shims, mounts and cgroups.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "lib/rpc/audit.h"
#include "services/task/task_supervisor.h"

namespace gantry::task {

// Where to look; `proc` is "/proc" but in tests.
struct AuditPlaces {
  std::string bundle_root;
  std::string socket_directory;
  std::string gateway_socket;  // Shims of this suite have it on their command line.
  std::string proc = "/proc";
};

// Finds bundles, shim sockets, shim processes and mounts without a task, and bundles that are gone
// from under their task.
absl::Status AuditTasks(TaskSupervisor& supervisor, const AuditPlaces& places,
                        rpc::AuditReport& report);

// A shim of this suite, from /proc.
struct ShimProcess {
  std::string pid;
  std::string ns;
  std::string id;
};
// From the words of a command line, zero-terminated each. Nothing: it is no shim of this suite's.
bool ParseShimCommandLine(absl::string_view cmdline, const std::string& gateway_socket,
                          ShimProcess* process);

}  // namespace gantry::task
