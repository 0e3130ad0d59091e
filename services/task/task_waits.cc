// Who waits for which process, and how the waiting ends.
#include <utility>

#include "containerd/events/events.pb.h"
#include "services/task/shim_connection.h"
#include "services/task/shim_messages.h"
#include "services/task/task.h"
#include "services/task/task_supervisor.h"

namespace gantry::task {
namespace {

namespace v2 = containerd::task::v2;

}  // namespace

uint64_t TaskSupervisor::Wait(const std::string& ns, const std::string& id,
                              const std::string& exec_id, WaitDone done) {
  absl::StatusOr<TaskPtr> found = Find(ns, id);
  if (!found.ok()) {
    done(found.status());
    return 0;
  }
  TaskPtr task = *found;
  uint64_t ticket = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (!stopping_) ticket = next_ticket_++;
  }
  if (ticket == 0) {
    done(absl::UnavailableError("gantry-task is stopping; ask again"));
    return 0;
  }
  bool ask = false;
  absl::StatusOr<Exit> known = NoTask(id);
  {
    absl::MutexLock lock(&task->mutex);
    const bool gone = task->phase == Task::Phase::kCreating ||
                      (task->phase == Task::Phase::kEnded && !exec_id.empty());
    if (exec_id.empty() && task->exit.has_value()) {
      known = *task->exit;
    } else if (!gone) {
      WaitedProcess& process = task->processes[exec_id];
      process.waiters[ticket] = std::move(done);
      ask = task->connection != nullptr && !std::exchange(process.asked, true);
      known = absl::UnknownError("");
    }
  }
  if (known.ok() || absl::IsNotFound(known.status())) {
    done(std::move(known));
    return 0;
  }
  if (ask) AskShimToWait(task, exec_id);
  return ticket;
}

void TaskSupervisor::AskShimToWait(const TaskPtr& task, const std::string& exec_id) {
  std::shared_ptr<ShimConnection> connection;
  {
    absl::MutexLock lock(&task->mutex);
    connection = task->connection;
  }
  if (connection == nullptr) return;  // The task is ending, which completes all waits.
  v2::WaitRequest request;
  request.set_id(task->id);
  request.set_exec_id(exec_id);
  connection->CallAsync(
      "Wait", request, absl::InfiniteDuration(),
      [this, weak = std::weak_ptr<Task>(task), exec_id](absl::StatusOr<std::string> payload) {
        TaskPtr waited = weak.lock();
        // When the connection is lost, the clean-up finds out what became of the process.
        if (waited == nullptr || (!payload.ok() && ConnectionWasLost(payload.status()))) return;
        const absl::StatusOr<v2::WaitResponse> response = ParseAnswer<v2::WaitResponse>(payload);
        if (!response.ok()) return Complete(waited, exec_id, response.status());
        Complete(waited, exec_id,
                 Exit{.code = response->exit_status(), .at = ToTime(response->exited_at())});
      });
}

void TaskSupervisor::PrepareToStop() {
  std::vector<TaskPtr> tasks;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (const auto& [name, task] : tasks_) tasks.push_back(task);
  }
  for (const TaskPtr& task : tasks) {
    std::vector<std::string> waited_on;
    {
      absl::MutexLock lock(&task->mutex);
      for (const auto& [exec_id, process] : task->processes) waited_on.push_back(exec_id);
    }
    for (const std::string& exec_id : waited_on) {
      Complete(task, exec_id, absl::UnavailableError("gantry-task is stopping; ask again"));
    }
  }
}

void TaskSupervisor::CancelWait(const std::string& ns, const std::string& id,
                                const std::string& exec_id, uint64_t ticket) {
  absl::StatusOr<TaskPtr> task = Find(ns, id);
  if (!task.ok()) return;
  WaitDone dropped;  // Destroyed without the lock.
  absl::MutexLock lock(&(*task)->mutex);
  auto process = (*task)->processes.find(exec_id);
  if (process == (*task)->processes.end()) return;
  auto waiter = process->second.waiters.find(ticket);
  if (waiter == process->second.waiters.end()) return;
  dropped = std::move(waiter->second);
  process->second.waiters.erase(waiter);
}

void TaskSupervisor::Complete(const TaskPtr& task, const std::string& exec_id,
                              const absl::StatusOr<Exit>& exit) {
  std::map<uint64_t, WaitDone> waiters;
  {
    absl::MutexLock lock(&task->mutex);
    auto process = task->processes.find(exec_id);
    if (process == task->processes.end()) return;
    waiters.swap(process->second.waiters);
    task->processes.erase(process);
  }
  for (auto& [ticket, done] : waiters) done(exit);
}

void TaskSupervisor::Observe(const containerd::types::Envelope& envelope) {
  if (envelope.topic() != "/tasks/exit") return;
  containerd::events::TaskExit event;
  if (!event.ParseFromString(envelope.event().value())) return;
  absl::StatusOr<TaskPtr> task = Find(envelope.namespace_(), event.container_id());
  if (!task.ok()) return;
  const Exit exit{.pid = event.pid(), .code = event.exit_status(), .at = ToTime(event.exited_at())};
  const bool init = event.id().empty() || event.id() == event.container_id();
  if (init) {
    absl::MutexLock lock(&(*task)->mutex);
    // A late event of an earlier task with the same id says nothing about this one.
    const uint32_t pid = (*task)->pid;
    if (pid != 0 && exit.pid != 0 && pid != exit.pid) return;
    (*task)->exit = exit;
  }
  Complete(*task, init ? "" : event.id(), exit);
}

}  // namespace gantry::task
