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
  // Who shares a shim is known before anybody asks it: the last one to leave it ends it.
  std::map<std::string, std::shared_ptr<ShimProcess>> shims;
  std::vector<std::pair<TaskPtr, absl::StatusOr<Bootstrap>>> found;
  for (const BundleName& bundle : *bundles) {
    auto task = std::make_shared<Task>(options_.bundle_root, bundle.ns, bundle.id);
    absl::StatusOr<Bootstrap> bootstrap = task->bundle.ReadBootstrap();
    if (bootstrap.ok()) {
      std::shared_ptr<ShimProcess>& shim = shims[bootstrap->address];
      if (shim == nullptr) shim = std::make_shared<ShimProcess>();
      shim->bootstrap = *bootstrap;
      task->shim = shim;
      task->group = PodGroupOf(sys::ReadFile(task->bundle.File("config.json")).value_or(""));
    }
    found.emplace_back(std::move(task), std::move(bootstrap));
  }
  shims.clear();
  {
    // A pool of its own: shims that do not answer take their five seconds side by side.
    Workers adopters(16);
    for (auto& [task, bootstrap] : found) {
      adopters.Post([this, task = std::move(task), bootstrap = std::move(bootstrap)] {
        AdoptOne(task, bootstrap);
      });
    }
  }
  SweepAfterAdoption();
  CountTasks();
  launcher_.FillPool();
  if (!bundles->empty())
    log::Info("tasks of the last run looked at", {{"bundles", bundles->size()}});
}

void TaskSupervisor::AdoptOne(const TaskPtr& task, const absl::StatusOr<Bootstrap>& bootstrap) {
  const std::string& ns = task->ns;
  const std::string& id = task->id;
  task->spec.ns = ns;
  task->spec.id = id;
  const auto remove = [&](const char* why) {
    log::Info("left bundle removed", {{"container", id}, {"why", why}});
    if (LeaveShim(*task) != nullptr) RemoveSocket(*task);
    if (absl::Status removed = FinishDelete(*task, /*run_delete_command=*/false); !removed.ok()) {
      log::Error("left bundle could not be removed", {{"container", id}, {"error", removed}});
    }
  };
  if (!bootstrap.ok()) return remove("its shim was never started");
  task->address = bootstrap->address;
  task->spec.binary = bootstrap->binary;
  if (task->spec.binary.empty()) task->spec.binary = ResolveRuntime("").value_or("");

  uint32_t pid = 0;
  const absl::StatusOr<std::string> created = sys::ReadFile(task->bundle.File(kCreatedFile), 64);
  if (created.ok()) (void)absl::SimpleAtoi(*created, &pid);
  const auto keep = [&](Task::Phase phase) {
    {
      absl::MutexLock lock(&task->mutex);
      task->phase = phase;
      task->pid = pid;
    }
    absl::MutexLock lock(&mutex_);
    tasks_[{ns, id}] = task;
  };
  if (sys::Exists(task->bundle.File(kEndedFile))) {
    absl::StatusOr<Exit> exit = ReadExitFile(task->bundle.File(kExitFile));
    {
      absl::MutexLock lock(&task->mutex);
      task->exit = exit.ok() ? *exit : Exit{.pid = pid, .code = 255, .at = absl::Now()};
    }
    (void)LeaveShim(*task);
    return keep(Task::Phase::kEnded);
  }
  if (!IsOwnShim(task->spec.binary)) {
    // Before dialling: its log must be open for a shim to go on.
    if (absl::StatusOr<sys::UniqueFd> log = launcher_.OpenLog(task->bundle); log.ok()) {
      logs_.Add(task->LogName(), *std::move(log));
    }
  }
  const absl::Status connected = Connect(task, *bootstrap);
  if (!connected.ok() && !absl::IsDeadlineExceeded(connected)) {
    if (created.ok()) {
      keep(Task::Phase::kLive);
      return EndTask(task);
    }
    (void)launcher_.RunDelete(task->spec, task->bundle);
    return remove("its shim died before its task was created");
  }
  std::shared_ptr<ShimConnection> connection;
  {
    absl::MutexLock lock(&task->mutex);
    connection = task->connection;
  }
  v2::StateRequest request;
  request.set_id(id);
  absl::StatusOr<v2::StateResponse> state = absl::DeadlineExceededError("not asked");
  if (connected.ok()) {
    state =
        ParseAnswer<v2::StateResponse>(connection->Call("State", request, options_.probe_timeout));
  }
  if (absl::IsNotFound(state.status())) {
    connection.reset();
    UndoCreate(*task);
    return log::Info("left shim ended", {{"container", id}, {"why", "it has no task"}});
  }
  if (!state.ok()) {
    // Alive but silent: perhaps stopped by a debugger. Its container may run, so it is kept.
    log::Warning("shim does not answer; its task is kept",
                 {{"container", id}, {"error", state.status()}});
    keep(Task::Phase::kLive);
    if (!connection->connected()) OnClosed(task);
    return;
  }
  pid = state->pid();
  if (!created.ok()) {
    (void)sys::WriteFileAtomically(task->bundle.File(kCreatedFile), absl::StrCat(pid));
  }
  keep(Task::Phase::kLive);
  if (state->status() == containerd::v1::types::STOPPED) {
    const Exit exit{.pid = pid, .code = state->exit_status(), .at = ToTime(state->exited_at())};
    {
      absl::MutexLock lock(&task->mutex);
      task->exit = exit;
    }
    // Our own shim hands in its exit until we take it. A stranger's gave up after five tries.
    if (!IsOwnShim(task->spec.binary)) PublishExit(task, exit);
  }
  if (!connection->connected()) OnClosed(task);
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
