#include "services/task/task_supervisor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "services/task/shim_connection.h"
#include "services/task/shim_messages.h"
#include "services/task/task.h"

namespace gantry::task {
namespace {

namespace v2 = containerd::task::v2;

}  // namespace

absl::Status NoTask(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("task '", id, "' does not exist"));
}

TaskSupervisor::TaskSupervisor(SupervisorOptions options, ContainerSource& containers,
                               ShimLauncher& launcher, EventForwarder& events, ShimLogs& logs,
                               ChildReaper& reaper, Workers& workers, metrics::Registry& metrics)
    : options_(std::move(options)),
      trash_(absl::StrCat(options_.bundle_root, "/.trash")),
      containers_(containers),
      launcher_(launcher),
      events_(events),
      logs_(logs),
      reaper_(reaper),
      workers_(workers),
      metrics_(metrics) {
  CountTasks();
}

TaskSupervisor::~TaskSupervisor() {
  std::map<std::pair<std::string, std::string>, TaskPtr> tasks;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  workers_.WaitUntilIdle();
  {
    absl::MutexLock lock(&mutex_);
    tasks.swap(tasks_);
  }
  for (auto& [name, task] : tasks) {
    if (task->shim != nullptr) task->shim->child.Release();
    std::shared_ptr<ShimConnection> connection;
    absl::MutexLock lock(&task->mutex);
    connection = std::move(task->connection);
  }
  tasks.clear();
  // Closing connections answers the calls under way, whose callbacks name this object.
  workers_.WaitUntilIdle();
}

absl::StatusOr<TaskPtr> TaskSupervisor::Find(const std::string& ns, const std::string& id) {
  absl::MutexLock lock(&mutex_);
  auto found = tasks_.find({ns, id});
  if (found == tasks_.end()) return NoTask(id);
  return found->second;
}

void TaskSupervisor::Call(const std::string& ns, const std::string& id, const std::string& method,
                          const google::protobuf::MessageLite& request, absl::Duration timeout,
                          ttrpc::Answer answer) {
  absl::StatusOr<TaskPtr> task = Find(ns, id);
  if (!task.ok()) return answer(task.status());
  std::shared_ptr<ShimConnection> connection;
  absl::StatusOr<std::string> known = NoTask(id);
  {
    absl::MutexLock lock(&(*task)->mutex);
    connection = (*task)->connection;
    switch ((*task)->phase) {
      case Task::Phase::kCreating:
        connection = nullptr;
        break;
      case Task::Phase::kLive:
        break;
      case Task::Phase::kEnding:
        known = absl::UnavailableError(
            absl::StrCat("task '", id, "': its shim ended and is being cleaned up; try again"));
        break;
      case Task::Phase::kDeleting:
        break;
      case Task::Phase::kEnded:
        known = absl::NotFoundError(
            absl::StrCat("task '", id, "': the process has ended; delete the task"));
        if (method == "State") {
          v2::StateResponse state;
          state.set_id(id);
          state.set_bundle((*task)->bundle.path());
          state.set_pid((*task)->exit->pid);
          state.set_status(containerd::v1::types::STOPPED);
          state.set_exit_status((*task)->exit->code);
          SetTime((*task)->exit->at, state.mutable_exited_at());
          known = state.SerializeAsString();
        }
        break;
    }
  }
  if (connection == nullptr) return answer(std::move(known));
  connection->CallAsync(method, request, timeout,
                        [id, answer = std::move(answer)](absl::StatusOr<std::string> payload) {
                          if (payload.ok() || !ConnectionWasLost(payload.status())) {
                            return answer(std::move(payload));
                          }
                          answer(absl::UnavailableError(
                              absl::StrCat("task '", id, "': its shim ended during the call")));
                        });
}

absl::StatusOr<std::string> TaskSupervisor::ShimAddress(const std::string& ns,
                                                        const std::string& id) {
  ASSIGN_OR_RETURN(TaskPtr task, Find(ns, id));
  absl::MutexLock lock(&task->mutex);
  if (task->phase != Task::Phase::kLive) return NoTask(id);
  return task->address;
}

std::vector<TaskName> TaskSupervisor::List(const std::string& ns) {
  std::vector<TaskPtr> tasks;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [name, task] : tasks_) {
      if (ns.empty() || name.first == ns) tasks.push_back(task);
    }
  }
  std::vector<TaskName> names;
  for (const TaskPtr& task : tasks) {
    absl::MutexLock lock(&task->mutex);
    if (task->phase != Task::Phase::kCreating) names.push_back({task->ns, task->id});
  }
  return names;
}

TaskSupervisor::Inventory TaskSupervisor::TakeInventory() {
  Inventory inventory;
  // In the order in which a shim passes through them, so that none slips by.
  for (const std::string& socket : launcher_.SocketsInMaking()) {
    inventory.addresses.push_back(socket);
  }
  for (const ShimLauncher::Waiting& waiting : launcher_.WaitingShims()) {
    inventory.addresses.push_back(waiting.socket);
    inventory.shim_pids.push_back(waiting.pid);
  }
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, task] : tasks_) {
    inventory.bundles.push_back(task->bundle.path());
    inventory.addresses.push_back(task->address);
    if (task->shim != nullptr) inventory.shim_pids.push_back(task->shim->pid);
  }
  return inventory;
}

bool TaskSupervisor::IsLeaving(pid_t shim) {
  absl::MutexLock lock(&leaving_->mutex);
  return leaving_->pids.contains(shim);
}

void TaskSupervisor::Forget(Task& task) {
  TaskPtr last;
  {
    absl::MutexLock lock(&mutex_);
    auto found = tasks_.find({task.ns, task.id});
    if (found == tasks_.end()) return;
    last = std::move(found->second);
    tasks_.erase(found);
  }
  CountTasks();
  std::vector<std::string> waited_on;
  std::optional<Exit> exit;
  {
    absl::MutexLock lock(&last->mutex);
    last->forgotten = true;
    for (const auto& [exec_id, process] : last->processes) waited_on.push_back(exec_id);
    exit = last->exit;
  }
  for (const std::string& exec_id : waited_on) {
    Complete(last, exec_id, exit ? absl::StatusOr<Exit>(*exit) : NoTask(last->id));
  }
}

void TaskSupervisor::CountTasks() {
  std::vector<TaskPtr> tasks;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [name, task] : tasks_) tasks.push_back(task);
  }
  int running = 0;
  for (const TaskPtr& task : tasks) {
    absl::MutexLock lock(&task->mutex);
    if (task->phase != Task::Phase::kEnded) ++running;
  }
  metrics_.GetGauge("gantry_task_shims_running", "Shims of tasks that are not deleted.")
      .Set(running);
}

}  // namespace gantry::task
