// How the tasks of the last run are found again (TaskSupervisor::Adopt).
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"
#include "services/task/pod_group.h"
#include "services/task/shim_connection.h"
#include "services/task/shim_messages.h"
#include "services/task/task.h"
#include "services/task/task_supervisor.h"

namespace gantry::task {
namespace {

namespace v2 = containerd::task::v2;

}  // namespace

void TaskSupervisor::Adopt() {
  absl::StatusOr<std::vector<BundleName>> bundles = ListBundles(options_.bundle_root);
  if (!bundles.ok()) {
    log::Error("bundles cannot be listed; tasks of the last run are not found",
               {{"error", bundles.status()}});
    return;
  }
  std::vector<LeftTask> left = ReadLeftTasks(*bundles);
  {
    // A pool of its own: shims that do not answer take their five seconds side by side.
    Workers adopters(16);
    for (LeftTask& one : left) {
      adopters.Post([this, one = std::move(one)] { AdoptOne(one); });
    }
  }
  SweepAfterAdoption();
  SweepTrash();
  CountTasks();
  launcher_.FillPool();
  if (!bundles->empty())
    log::Info("tasks of the last run looked at", {{"bundles", bundles->size()}});
}

// Who shares a shim is known before anybody asks it: the last one to leave it ends it.
std::vector<TaskSupervisor::LeftTask> TaskSupervisor::ReadLeftTasks(
    const std::vector<BundleName>& bundles) const {
  std::map<std::string, std::shared_ptr<SharedShim>> shims;
  std::vector<LeftTask> left;
  for (const BundleName& bundle : bundles) {
    LeftTask one{std::make_shared<Task>(options_.bundle_root, bundle.ns, bundle.id)};
    Task& task = *one.task;
    task.spec.ns = bundle.ns;
    task.spec.id = bundle.id;
    one.bootstrap = task.bundle.ReadBootstrap();
    const absl::StatusOr<std::string> pid = sys::ReadFile(task.bundle.File(kCreatedFile), 64);
    one.created = pid.ok();
    if (pid.ok()) (void)absl::SimpleAtoi(*pid, &one.pid);
    if (one.bootstrap.ok()) {
      task.address = one.bootstrap->address;
      task.spec.binary = one.bootstrap->binary;
      if (task.spec.binary.empty()) task.spec.binary = ResolveRuntime("").value_or("");
      task.group = PodGroupOf(sys::ReadFile(task.bundle.File("config.json")).value_or(""));
      std::shared_ptr<SharedShim>& shim = shims[task.address];
      if (shim == nullptr) shim = std::make_shared<SharedShim>();
      shim->bootstrap = *one.bootstrap;
      task.shim = shim;
    }
    left.push_back(std::move(one));
  }
  return left;
}

void TaskSupervisor::AdoptOne(const LeftTask& left) {
  Task& task = *left.task;
  if (!left.bootstrap.ok()) return RemoveLeft(task, "its shim was never started");
  if (sys::Exists(task.bundle.File(kEndedFile))) return KeepEnded(left);
  if (!IsOwnShim(task.spec.binary)) {
    // Before dialling: its log must be open for a shim to go on.
    if (absl::StatusOr<sys::UniqueFd> log = launcher_.OpenLog(task.bundle); log.ok()) {
      logs_.Add(task.LogName(), *std::move(log));
    }
  }
  const absl::Status connected = Connect(left.task, *left.bootstrap);
  if (!connected.ok() && !absl::IsDeadlineExceeded(connected)) {
    if (left.created) {
      Keep(left, Task::Phase::kLive, left.pid);
      return EndTask(left.task);
    }
    (void)launcher_.RunDelete(task.spec, task.bundle);
    return RemoveLeft(task, "its shim died before its task was created");
  }
  const absl::StatusOr<v2::StateResponse> state =
      connected.ok() ? AskState(task) : absl::StatusOr<v2::StateResponse>(connected);
  if (absl::IsNotFound(state.status())) {
    UndoCreate(task);
    return log::Info("left task removed", {{"container", task.id}, {"why", "its shim has none"}});
  }
  KeepLive(left, state);
}

void TaskSupervisor::RemoveLeft(Task& task, const char* why) {
  log::Info("left bundle removed", {{"container", task.id}, {"why", why}});
  if (LeaveShim(task) != nullptr) RemoveSocket(task);
  if (absl::Status removed = FinishDelete(task, /*run_delete_command=*/false); !removed.ok()) {
    log::Error("left bundle could not be removed", {{"container", task.id}, {"error", removed}});
  }
}

void TaskSupervisor::Keep(const LeftTask& left, Task::Phase phase, uint32_t pid) {
  {
    absl::MutexLock lock(&left.task->mutex);
    left.task->phase = phase;
    left.task->pid = pid;
  }
  absl::MutexLock lock(&mutex_);
  tasks_[{left.task->ns, left.task->id}] = left.task;
}

void TaskSupervisor::KeepEnded(const LeftTask& left) {
  absl::StatusOr<Exit> exit = ReadExitFile(left.task->bundle.File(kExitFile));
  {
    absl::MutexLock lock(&left.task->mutex);
    left.task->exit = exit.ok() ? *exit : Exit{.pid = left.pid, .code = 255, .at = absl::Now()};
  }
  (void)LeaveShim(*left.task);
  Keep(left, Task::Phase::kEnded, left.pid);
}

absl::StatusOr<v2::StateResponse> TaskSupervisor::AskState(Task& task) {
  std::shared_ptr<ShimConnection> connection;
  {
    absl::MutexLock lock(&task.mutex);
    connection = task.connection;
  }
  v2::StateRequest request;
  request.set_id(task.id);
  return ParseAnswer<v2::StateResponse>(connection->Call("State", request, options_.probe_timeout));
}

void TaskSupervisor::KeepLive(const LeftTask& left,
                              const absl::StatusOr<v2::StateResponse>& state) {
  Task& task = *left.task;
  if (!state.ok()) {
    // Alive but silent: perhaps stopped by a debugger. Its container may run, so it is kept.
    log::Warning("shim does not answer; its task is kept",
                 {{"container", task.id}, {"error", state.status()}});
    Keep(left, Task::Phase::kLive, left.pid);
    return EndIfLost(left.task);
  }
  const uint32_t pid = state->pid();
  if (!left.created) {
    (void)sys::WriteFileAtomically(task.bundle.File(kCreatedFile), absl::StrCat(pid));
  }
  Keep(left, Task::Phase::kLive, pid);
  if (state->status() == containerd::v1::types::STOPPED) {
    const Exit exit{.pid = pid, .code = state->exit_status(), .at = ToTime(state->exited_at())};
    {
      absl::MutexLock lock(&task.mutex);
      task.exit = exit;
    }
    // Our own shim hands in its exit until we take it. A stranger's gave up after five tries.
    if (!IsOwnShim(task.spec.binary)) PublishExit(left.task, exit);
  }
  EndIfLost(left.task);
}

// The shim may have died before the task was there to be ended by it.
void TaskSupervisor::EndIfLost(const TaskPtr& task) {
  bool lost;
  {
    absl::MutexLock lock(&task->mutex);
    lost = task->connection != nullptr && !task->connection->connected();
  }
  if (lost) OnClosed(task);
}

void TaskSupervisor::SweepAfterAdoption() {
  std::set<std::string> used;
  std::set<std::string> works;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [name, task] : tasks_) {
      used.insert(ttrpc::SocketPath(task->address));
      works.insert(absl::StrCat(name.first, "/", name.second));
    }
  }
  const std::string& sockets = launcher_.options().socket_directory;
  for (const std::string& name : sys::ListDirectory(sockets).value_or(std::vector<std::string>())) {
    const std::string path = absl::StrCat(sockets, "/", name);
    if (used.contains(path)) continue;
    if (absl::Status removed = sys::Unlink(path); !removed.ok()) {
      log::Warning("left socket stays", {{"path", path}, {"error", removed}});
    }
  }
  const std::string& work = launcher_.options().work_directory;
  for (const BundleName& name : ListBundles(work).value_or(std::vector<BundleName>())) {
    const std::string relative = absl::StrCat(name.ns, "/", name.id);
    if (works.contains(relative)) continue;
    (void)sys::RemoveTree(absl::StrCat(work, "/", relative));
    (void)sys::RemoveEmptyDirectory(absl::StrCat(work, "/", name.ns));
  }
}

}  // namespace gantry::task
