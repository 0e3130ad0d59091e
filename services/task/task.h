// One task as the supervisor keeps it. For the files of TaskSupervisor only; its phases are
// explained in task_supervisor.h.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "lib/sys/process.h"
#include "lib/sys/unique_fd.h"
#include "services/task/bundle.h"
#include "services/task/exit_file.h"
#include "services/task/shim_connection.h"
#include "services/task/shim_launcher.h"
#include "services/task/task_supervisor.h"

namespace gantry::task {

// A bundle's own files (bundle.h).
inline constexpr char kExitFile[] = "exit";
inline constexpr char kEndedFile[] = "shim-ended";
inline constexpr char kCreatedFile[] = "created";  // Holds the pid; its task was promised.

// Who waits for one process of a task.
struct WaitedProcess {
  bool asked = false;  // The shim is being waited on.
  std::map<uint64_t, TaskSupervisor::WaitDone> waiters;
};

// A shim that runs, shared by the tasks that are in it. Used under the supervisor's mutex; by who
// has left it last (TaskSupervisor::LeaveShim), without.
struct SharedShim {
  Bootstrap bootstrap;
  pid_t pid = 0;        // 0: it did not tell.
  sys::Child child;     // Our own shim, when this process started it.
  sys::UniqueFd pidfd;  // Every other shim that told its pid.
};

// Thread-safe where annotated.
struct Task {
  using Phase = TaskPhase;

  Task(const std::string& root, std::string task_ns, std::string task_id)
      : ns(std::move(task_ns)), id(std::move(task_id)), bundle(root, ns, id) {}

  std::string LogName() const { return ns + "/" + id; }

  const std::string ns;
  const std::string id;
  const Bundle bundle;

  absl::Mutex mutex;
  Phase phase ABSL_GUARDED_BY(mutex) = Phase::kCreating;
  bool forgotten ABSL_GUARDED_BY(mutex) = false;  // There is no such task any more.
  uint32_t pid ABSL_GUARDED_BY(mutex) = 0;
  std::optional<Exit> exit ABSL_GUARDED_BY(mutex);  // Of init.
  std::shared_ptr<ShimConnection> connection ABSL_GUARDED_BY(mutex);
  std::map<std::string, WaitedProcess> processes ABSL_GUARDED_BY(mutex);  // By exec id.

  // Written while creating or adopting, before anybody else sees the task.
  ShimSpec spec;

  // Under the supervisor's mutex, since members of a group look at each other's.
  std::string group;         // Of whose shim it takes part; empty: it is alone.
  bool starts_shim = false;  // The others of its group wait.
  std::string address;
  std::shared_ptr<SharedShim> shim;  // nullptr: none yet, or it has left it.
};

// Errors: always NotFound.
absl::Status NoTask(const std::string& id);

}  // namespace gantry::task
