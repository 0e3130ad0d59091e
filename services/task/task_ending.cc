// How a task ends: its shim died (OnClosed), or somebody deletes it (Delete).
#include <signal.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "containerd/events/events.pb.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "services/task/shim_connection.h"
#include "services/task/shim_messages.h"
#include "services/task/task.h"
#include "services/task/task_supervisor.h"

namespace gantry::task {
namespace {

namespace v2 = containerd::task::v2;

constexpr absl::Duration kDeleteCall = absl::Seconds(30);  // The shim drains output for up to 10 s.
constexpr absl::Duration kEndingTimeout = absl::Seconds(30);

// The files of a deleted task, which nobody waits for.
void SweepDiscarded(const std::string& path) {
  absl::Status swept = FAILPOINT("task.bundle.before_sweep");
  if (swept.ok()) swept = sys::RemoveTree(path);
  if (swept.ok()) return;
  log::Warning("files of a deleted task stay until the next start of gantry-task",
               {{"path", path}, {"error", swept}});
}

}  // namespace

void TaskSupervisor::OnClosed(const TaskPtr& task) {
  workers_.Post([this, task] { EndTask(task); });
}

void TaskSupervisor::EndTask(const TaskPtr& task) {
  std::shared_ptr<ShimConnection> connection;
  Exit exit;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;  // The next start adopts it.
  }
  {
    absl::MutexLock lock(&task->mutex);
    // Creating and deleting tasks have somebody who waits for the shim and cleans up.
    if (task->phase != Task::Phase::kLive) return;
    task->phase = Task::Phase::kEnding;
    connection = std::move(task->connection);
    exit = task->exit.value_or(Exit{.pid = task->pid, .code = 128 + SIGKILL, .at = absl::Now()});
  }
  log::Warning("a shim ended without being asked; its container is stopped and cleaned up",
               {{"namespace", task->ns}, {"container", task->id}});
  connection.reset();
  if (const std::shared_ptr<SharedShim> shim = LeaveShim(*task); shim != nullptr) EndShim(*shim);
  if (absl::Status pause = FAILPOINT("task.end.before_delete"); !pause.ok()) {
    log::Warning("failpoint", {{"error", pause}});
  }
  const absl::StatusOr<v2::DeleteResponse> deleted = launcher_.RunDelete(task->spec, task->bundle);
  if (!deleted.ok()) {
    log::Error("clean-up command of a dead shim failed; processes of the container may be left",
               {{"container", task->id}, {"error", deleted.status()}});
  }
  // The shim's own record is the truth; it may have been written after the last event we saw.
  const std::string exit_file = task->bundle.File(kExitFile);
  if (absl::StatusOr<Exit> record = ReadExitFile(exit_file); record.ok()) {
    exit = *record;
  } else if (absl::Status written = WriteExitFile(exit_file, exit); !written.ok()) {
    log::Warning("exit record could not be written", {{"container", task->id}, {"error", written}});
  }
  if (absl::Status unmounted = sys::UnmountTree(task->bundle.rootfs()); !unmounted.ok()) {
    log::Warning("root file system of a dead shim stays mounted",
                 {{"container", task->id}, {"error", unmounted}});
  }
  logs_.Remove(task->LogName());
  // Nobody serves it any more, whoever made it.
  (void)sys::Unlink(ttrpc::SocketPath(task->address));

  std::vector<std::string> waited_on;
  {
    absl::MutexLock lock(&task->mutex);
    task->phase = Task::Phase::kEnded;
    task->exit = exit;
    for (const auto& [exec_id, process] : task->processes) waited_on.push_back(exec_id);
  }
  CountTasks();
  PublishExit(task, exit);
  // Execs have died with their container, if not before; nobody knows better how any more.
  for (const std::string& exec_id : waited_on) Complete(task, exec_id, exit);
}

// Brings the task into kDeleting. True: it had ended before.
absl::StatusOr<bool> TaskSupervisor::BeginDelete(Task& task) {
  absl::MutexLock lock(&task.mutex);
  // Also for one that somebody else creates or deletes: who asked for that may have died since,
  // and whoever deletes it now has to find it gone afterwards.
  const auto settled = [&task]() ABSL_SHARED_LOCKS_REQUIRED(task.mutex) {
    return task.forgotten || task.phase == Task::Phase::kLive || task.phase == Task::Phase::kEnded;
  };
  if (!task.mutex.AwaitWithTimeout(absl::Condition(&settled), kEndingTimeout)) {
    return absl::UnavailableError("it is still being created, cleaned up or deleted; try again");
  }
  if (task.forgotten) return NoTask(task.id);
  return std::exchange(task.phase, Task::Phase::kDeleting) == Task::Phase::kEnded;
}

absl::Status TaskSupervisor::DeleteInShim(Task& task) {
  std::shared_ptr<ShimConnection> connection;
  {
    absl::MutexLock lock(&task.mutex);
    connection = task.connection;
  }
  v2::DeleteRequest request;
  request.set_id(task.id);
  const absl::StatusOr<v2::DeleteResponse> response =
      ParseAnswer<v2::DeleteResponse>(connection->Call("Delete", request, kDeleteCall));
  // An earlier Delete got through, and we died before we finished it.
  if (absl::IsNotFound(response.status())) return absl::OkStatus();
  RETURN_IF_ERROR(response.status());
  absl::MutexLock lock(&task.mutex);
  task.exit = Exit{
      .pid = response->pid(), .code = response->exit_status(), .at = ToTime(response->exited_at())};
  return absl::OkStatus();
}

absl::StatusOr<Exit> TaskSupervisor::Delete(const std::string& ns, const std::string& id) {
  const std::string context = absl::StrCat("delete task '", id, "'");
  ASSIGN_OR_RETURN(TaskPtr task, Find(ns, id));
  absl::StatusOr<bool> ended = BeginDelete(*task);
  RETURN_IF_ERROR(absl::IsNotFound(ended.status()) ? ended.status()
                                                   : Annotate(ended.status(), context));
  if (!*ended) {
    if (absl::Status refused = DeleteInShim(*task); !refused.ok()) {
      {
        absl::MutexLock lock(&task->mutex);
        task->phase = Task::Phase::kLive;
      }
      EndIfLost(task);
      return Annotate(refused, context);
    }
    if (absl::Status died = FAILPOINT("task.delete.after_call"); !died.ok()) {
      log::Warning("failpoint", {{"error", died}});
    }
    LeaveAfterDelete(*task);
  }
  Exit result;
  {
    absl::MutexLock lock(&task->mutex);
    if (!task->exit.has_value()) task->exit = Exit{.at = absl::Now()};
    result = *task->exit;
  }
  const bool run_delete_command = !*ended && !IsOwnShim(task->spec.binary);
  if (absl::Status finished = FinishDelete(*task, run_delete_command); !finished.ok()) {
    absl::MutexLock lock(&task->mutex);
    task->phase = Task::Phase::kEnded;  // The next Delete goes on here.
    return Annotate(finished, context);
  }
  if (*ended) PublishDelete(*task, result);
  Forget(*task);
  return result;
}

// The task's container is gone from its shim, which ends when it was the last.
void TaskSupervisor::LeaveAfterDelete(Task& task) {
  std::shared_ptr<ShimConnection> connection;
  {
    absl::MutexLock lock(&task.mutex);
    connection = std::move(task.connection);
  }
  const std::shared_ptr<SharedShim> shim = LeaveShim(task);
  if (shim == nullptr) return;
  v2::ShutdownRequest shutdown;
  shutdown.set_id(task.id);
  bool leaving = connection != nullptr;
  if (leaving && IsOwnShim(task.spec.binary) && shim->child.running()) {
    // Nobody waits for its answer: a child of ours that does not end is killed all the same.
    connection->CallAsync("Shutdown", shutdown, options_.shutdown_timeout,
                          [](const absl::StatusOr<std::string>&) {});
  } else if (leaving) {
    leaving = connection->Call("Shutdown", shutdown, options_.shutdown_timeout).ok();
  }
  connection.reset();
  if (leaving) {
    LetShimLeave(*shim, task.id);
  } else {
    EndShim(*shim);
  }
  RemoveSocket(task);
}

// Of our own shim, which may have been killed. A stranger's is its own business.
void TaskSupervisor::RemoveSocket(const Task& task) {
  if (!IsOwnShim(task.spec.binary)) return;
  if (absl::Status removed = sys::Unlink(ttrpc::SocketPath(task.address)); !removed.ok()) {
    log::Warning("socket of an ended shim stays; the next start removes it",
                 {{"task", task.id}, {"error", removed}});
  }
}

// Removes what a task has on disk, in an order that a crash may cut anywhere.
absl::Status TaskSupervisor::FinishDelete(Task& task, bool run_delete_command) {
  if (run_delete_command) {
    if (absl::Status deleted = launcher_.RunDelete(task.spec, task.bundle).status();
        !deleted.ok()) {
      log::Warning("clean-up command of a shim failed", {{"task", task.id}, {"error", deleted}});
    }
  }
  logs_.Remove(task.LogName());
  const std::string work =
      absl::StrCat(launcher_.options().work_directory, "/", task.ns, "/", task.id);
  RETURN_IF_ERROR(sys::RemoveTree(work));
  // Fails while the namespace has others, as it should.
  (void)sys::RemoveEmptyDirectory(work.substr(0, work.rfind('/')));
  ASSIGN_OR_RETURN(const std::string discarded, task.bundle.Discard(trash_));
  if (!discarded.empty()) workers_.Post([discarded] { SweepDiscarded(discarded); });
  return absl::OkStatus();
}

void TaskSupervisor::SweepTrash() {
  for (const std::string& name : sys::ListDirectory(trash_).value_or(std::vector<std::string>())) {
    SweepDiscarded(absl::StrCat(trash_, "/", name));
  }
}

void TaskSupervisor::PublishExit(const TaskPtr& task, const Exit& exit) {
  containerd::events::TaskExit event;
  event.set_container_id(task->id);
  event.set_id(task->id);
  event.set_pid(exit.pid);
  event.set_exit_status(exit.code);
  SetTime(exit.at, event.mutable_exited_at());
  events_.Forward(
      MakeEnvelope(task->ns, "/tasks/exit", event),
      [task] {
        // Until this is written, the next start publishes the exit again.
        absl::MutexLock lock(&task->mutex);
        if (task->phase != Task::Phase::kEnded) return;
        (void)sys::WriteFileAtomically(task->bundle.File(kEndedFile), "");
      },
      EventForwarder::Keep::kUntilDelivered);
}

void TaskSupervisor::PublishDelete(Task& task, const Exit& exit) {
  containerd::events::TaskDelete event;
  event.set_container_id(task.id);
  event.set_pid(exit.pid);
  event.set_exit_status(exit.code);
  SetTime(exit.at, event.mutable_exited_at());
  events_.Forward(MakeEnvelope(task.ns, "/tasks/delete", event));
}

}  // namespace gantry::task
