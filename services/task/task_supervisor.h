// Tasks and their shims: starts them, finds them again after a restart, notices when they end.
//
// A task is one container that was created and not yet deleted. Its life:
//   creating  Create is at work; nobody else sees the task
//   live      its shim answers; state, signals, execs and the rest are the shim's business
//   ending    the shim has gone without being asked; what it left is being cleaned up
//   ended     cleaned up; answers "stopped" with the exit until it is deleted
//   deleting  Delete is at work
// The truth about a live task is in its shim, and about all of them in the bundles under /run:
// Adopt reads it from there after a crash of ours, which the containers do not notice.
//
// A stuck shim holds up nobody but callers of its own task: calls are asynchronous with deadlines.
// Waits cost no thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "containerd/runtime/task/v2/task.pb.h"
#include "containerd/types/types.pb.h"
#include "lib/metrics/registry.h"
#include "lib/ttrpc/client.h"
#include "services/task/child_reaper.h"
#include "services/task/container_source.h"
#include "services/task/event_forwarder.h"
#include "services/task/exit_file.h"
#include "services/task/shim_launcher.h"
#include "services/task/shim_logs.h"
#include "services/task/workers.h"

namespace gantry::task {

struct SupervisorOptions {
  std::string bundle_root;
  BinarySearch search;
  std::string default_runtime = kOwnRuntime;
  // The runtime that serves the name io.containerd.runc.v2, which dockerd and ctr ask for by
  // default.
  std::string runc_runtime = kOwnRuntime;
  absl::Duration create_timeout = absl::Minutes(1);
  absl::Duration probe_timeout = absl::Seconds(5);
  absl::Duration shutdown_timeout = absl::Seconds(3);
};

struct CreateParameters {
  std::string ns;
  // id, rootfs, io, options; the bundle is filled in here.
  containerd::task::v2::CreateTaskRequest request;
  std::string runtime_path;  // Empty: the container record's runtime.
  // What the caller knows of the container. Without it the record is asked for.
  std::optional<ContainerRecord> record;
  // Run: the task is started, too. The size is its terminal's; 0: as it is.
  bool start = false;
  uint32_t rows = 0, columns = 0;
};

struct CreatedTask {
  uint32_t pid = 0;
  std::string shim_address;
  std::string timings;
  // With `start`: how that went. The task is there in any case.
  absl::Status started;
};

struct TaskName {
  std::string ns;
  std::string id;
};

class ShimConnection;
class StepTimings;
struct Task;  // task.h
enum class TaskPhase { kCreating, kLive, kEnding, kEnded, kDeleting };
struct SharedShim;                      // task.h
using TaskPtr = std::shared_ptr<Task>;  // Held by the map and by callbacks of calls under way.

// Thread-safe. Everything passed to the constructor outlives it. Its parts, one duty each:
// task_creation.cc, task_shims.cc, task_ending.cc, task_waits.cc, task_adoption.cc.
class TaskSupervisor {
 public:
  TaskSupervisor(SupervisorOptions options, ContainerSource& containers, ShimLauncher& launcher,
                 EventForwarder& events, ShimLogs& logs, ChildReaper& reaper, Workers& workers,
                 metrics::Registry& metrics);
  ~TaskSupervisor();  // Leaves all shims running.

  // Finds the tasks of the last run: connects to shims that live, cleans up after those that do not
  // (and publishes their exits), removes what was never finished. Called once, before serving.
  void Adopt();

  // Creates a task, and starts it when the parameters say so. Errors: NotFound — no such container,
  // or runtime; AlreadyExists — it has a task. Otherwise what the shim said. After an error nothing
  // is left. A start that fails is no error of this: see CreatedTask::started.
  absl::StatusOr<CreatedTask> Create(CreateParameters parameters);

  // Deletes a stopped (or never started) task and ends its shim; waits for one that is being
  // created. Errors: NotFound; FailedPrecondition or Unknown — it runs.
  absl::StatusOr<Exit> Delete(const std::string& ns, const std::string& id);

  // Passes one call on to the task's shim. An ended task answers State itself and everything else
  // with NotFound ("the process has ended"). `answer` must not block; it may run before this
  // returns.
  void Call(const std::string& ns, const std::string& id, const std::string& method,
            const google::protobuf::MessageLite& request, absl::Duration timeout,
            ttrpc::Answer answer);

  // Calls `done` once when the process has ended (init: empty exec id), now if it has already.
  // Answers a ticket for CancelWait; 0 when `done` was called already.
  using WaitDone = std::function<void(absl::StatusOr<Exit>)>;
  uint64_t Wait(const std::string& ns, const std::string& id, const std::string& exec_id,
                WaitDone done);
  // After this `done` is not called any more, unless it is being called now.
  void CancelWait(const std::string& ns, const std::string& id, const std::string& exec_id,
                  uint64_t ticket);

  // Ends all parked waits with Unavailable, and refuses new tasks: the process is about to stop.
  void PrepareToStop();

  // Where the task's shim listens. Errors: NotFound.
  absl::StatusOr<std::string> ShimAddress(const std::string& ns, const std::string& id);

  // Tasks of a namespace that callers can see; of all namespaces with an empty one.
  std::vector<TaskName> List(const std::string& ns);

  // An event of a shim, before it is forwarded. Must be called in the order of the events.
  void Observe(const containerd::types::Envelope& envelope);

  // For the audit: all bundles and shim sockets in use, also of tasks in the making.
  struct Inventory {
    std::vector<std::string> bundles;
    std::vector<std::string> addresses;
    std::vector<pid_t> shim_pids;  // Also of those that wait for their container.
  };
  Inventory TakeInventory();
  // Whether a shim of a deleted task is still handing in its last events. Bounded: it is killed
  // then.
  bool IsLeaving(pid_t shim);

 private:
  absl::StatusOr<TaskPtr> Find(const std::string& ns, const std::string& id);
  absl::StatusOr<std::string> ResolveRuntime(const std::string& name) const;
  absl::Status CreateSteps(CreateParameters& parameters, Task& task, CreatedTask& created);
  absl::Status CallShim(const CreateParameters& parameters, Task& task, StepTimings& timings,
                        CreatedTask& created);
  void UndoCreate(Task& task);

  absl::StatusOr<Bootstrap> AssignShim(Task& task, absl::string_view config_json);
  absl::StatusOr<std::shared_ptr<SharedShim>> JoinGroup(Task& task, const std::string& group);
  std::shared_ptr<SharedShim> FindShim(const std::string& address)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Connect(const TaskPtr& task, const Bootstrap& bootstrap);
  bool HasShim(const Task& task);
  // The shim, when no other task is in it: then its end is the caller's business.
  std::shared_ptr<SharedShim> LeaveShim(Task& task);
  void EndShim(SharedShim& shim);
  void LetShimLeave(SharedShim& shim, const std::string& id);

  void OnClosed(const TaskPtr& task);
  void EndTask(const TaskPtr& task);
  absl::StatusOr<bool> BeginDelete(Task& task);
  absl::Status DeleteInShim(Task& task);
  absl::Status FinishDelete(Task& task, bool run_delete_command);
  void LeaveAfterDelete(Task& task);
  void RemoveSocket(const Task& task);
  void SweepTrash();

  // What a bundle of the last run says.
  struct LeftTask {
    TaskPtr task;
    absl::StatusOr<Bootstrap> bootstrap = absl::NotFoundError("not read");
    bool created = false;  // It was promised to a caller.
    uint32_t pid = 0;
  };
  std::vector<LeftTask> ReadLeftTasks(const std::vector<BundleName>& bundles) const;
  void AdoptOne(const LeftTask& left);
  void RemoveLeft(Task& task, const char* why);
  void Keep(const LeftTask& left, TaskPhase phase, uint32_t pid);
  void KeepEnded(const LeftTask& left);
  void KeepLive(const LeftTask& left,
                const absl::StatusOr<containerd::task::v2::StateResponse>& state);
  absl::StatusOr<containerd::task::v2::StateResponse> AskState(Task& task);
  void EndIfLost(const TaskPtr& task);
  void SweepAfterAdoption();

  void AskShimToWait(const TaskPtr& task, const std::string& exec_id);
  void Complete(const TaskPtr& task, const std::string& exec_id, const absl::StatusOr<Exit>& exit);
  void PublishExit(const TaskPtr& task, const Exit& exit);
  void PublishDelete(Task& task, const Exit& exit);
  void Forget(Task& task);
  void CountTasks();

  const SupervisorOptions options_;
  const std::string trash_;  // Bundles of deleted tasks, until their files are removed.
  ContainerSource& containers_;
  ShimLauncher& launcher_;
  EventForwarder& events_;
  ShimLogs& logs_;
  ChildReaper& reaper_;
  Workers& workers_;
  metrics::Registry& metrics_;

  struct Leaving {
    absl::Mutex mutex;
    std::multiset<pid_t> pids ABSL_GUARDED_BY(mutex);
  };
  // Shared with the reaper's callbacks, which may come after this object has gone.
  const std::shared_ptr<Leaving> leaving_ = std::make_shared<Leaving>();

  absl::Mutex mutex_;  // Before any Task::mutex; never held over a call.
  std::map<std::pair<std::string, std::string>, TaskPtr> tasks_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_ticket_ ABSL_GUARDED_BY(mutex_) = 1;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gantry::task
