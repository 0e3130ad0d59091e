// Which shim a task has, with whom it shares it, and who ends it.
//
// The containers of a pod share one shim (pod_group.h). All of its tasks point to one SharedShim;
// who leaves it last ends it. Joining and leaving happen under the supervisor's mutex, so that
// nobody joins a shim that is being ended.
#include <signal.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "services/task/pod_group.h"
#include "services/task/shim_connection.h"
#include "services/task/shim_messages.h"
#include "services/task/task.h"
#include "services/task/task_supervisor.h"

namespace gantry::task {
namespace {

namespace v2 = containerd::task::v2;

constexpr absl::Duration kLeaveTimeout =
    absl::Seconds(15);  // For a shim to hand in its last events.

}  // namespace

// A shim of our own that a member of the group has, or nullptr: then the caller starts one, and
// others of the group wait for it here.
absl::StatusOr<std::shared_ptr<SharedShim>> TaskSupervisor::JoinGroup(Task& task,
                                                                      const std::string& group) {
  absl::MutexLock lock(&mutex_);
  task.group = group;
  const auto find = [&](bool starting) ABSL_SHARED_LOCKS_REQUIRED(mutex_) -> Task* {
    for (const auto& [name, other] : tasks_) {
      if (other.get() == &task || name.first != task.ns || other->group != group) continue;
      if (starting ? other->starts_shim : other->shim != nullptr) return other.get();
    }
    return nullptr;
  };
  const auto settled = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return find(true) == nullptr; };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&settled), launcher_.options().start_timeout)) {
    return absl::UnavailableError(
        absl::StrCat("the shim of its pod '", group, "' is still being started; try again"));
  }
  if (Task* const member = find(false); member != nullptr) {
    task.shim = member->shim;
    task.address = member->address;
    return task.shim;
  }
  task.starts_shim = true;
  return nullptr;
}

absl::StatusOr<Bootstrap> TaskSupervisor::AssignShim(Task& task, absl::string_view config_json) {
  const std::string group = IsOwnShim(task.spec.binary) ? PodGroupOf(config_json) : "";
  if (!group.empty()) {
    ASSIGN_OR_RETURN(const std::shared_ptr<SharedShim> joined, JoinGroup(task, group));
    if (joined != nullptr) {
      RETURN_IF_ERROR(task.bundle.WriteBootstrap(joined->bootstrap));
      return joined->bootstrap;
    }
  }
  absl::StatusOr<LaunchedShim> launched = launcher_.Launch(task.spec, task.bundle);
  {
    absl::MutexLock lock(&mutex_);  // Others look at it through the map.
    task.starts_shim = false;
    if (launched.ok()) {
      task.address = launched->bootstrap.address;
      // A stranger's shim groups by itself: its `start` answers the address of one that we know.
      if (!IsOwnShim(task.spec.binary)) task.shim = FindShim(task.address);
      if (task.shim == nullptr) task.shim = std::make_shared<SharedShim>();
      task.shim->bootstrap = launched->bootstrap;
      if (launched->child.running()) {
        task.shim->pid = launched->child.pid();
        task.shim->child = std::move(launched->child);
      }
    }
  }
  RETURN_IF_ERROR(launched.status());
  workers_.Post([this] { launcher_.FillPool(); });
  if (launched->log.ok()) logs_.Add(task.LogName(), std::move(launched->log));
  return launched->bootstrap;
}

std::shared_ptr<SharedShim> TaskSupervisor::FindShim(const std::string& address) {
  for (const auto& [name, other] : tasks_) {
    if (other->shim != nullptr && other->address == address) return other->shim;
  }
  return nullptr;
}

absl::Status TaskSupervisor::Connect(const TaskPtr& task, const Bootstrap& bootstrap) {
  // Weak: a task that is forgotten must not live on in its connection's callback.
  absl::StatusOr<std::shared_ptr<ShimConnection>> connection =
      ShimConnection::Dial(bootstrap.address, bootstrap.version, task->ns, workers_,
                           [this, weak = std::weak_ptr<Task>(task)] {
                             if (TaskPtr closed = weak.lock()) OnClosed(closed);
                           });
  RETURN_IF_ERROR(Annotate(connection.status(), "connect to the shim"));
  {
    absl::MutexLock lock(&task->mutex);
    task->connection = *connection;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (task->shim->pid > 0) return absl::OkStatus();
  }
  // A shim that is not our child: learn its pid, for the day it has to be killed.
  v2::ConnectRequest request;
  request.set_id(task->id);
  absl::StatusOr<v2::ConnectResponse> response = ParseAnswer<v2::ConnectResponse>(
      (*connection)->Call("Connect", request, options_.probe_timeout));
  RETURN_IF_ERROR(Annotate(response.status(), "probe the shim"));
  const pid_t pid = static_cast<pid_t>(response->shim_pid());
  absl::StatusOr<sys::UniqueFd> pidfd = sys::OpenPidfd(pid);
  absl::MutexLock lock(&mutex_);
  if (!pidfd.ok() || task->shim->pid > 0) return absl::OkStatus();
  task->shim->pid = pid;
  task->shim->pidfd = *std::move(pidfd);
  return absl::OkStatus();
}

bool TaskSupervisor::HasShim(const Task& task) {
  absl::MutexLock lock(&mutex_);
  return task.shim != nullptr;
}

std::shared_ptr<SharedShim> TaskSupervisor::LeaveShim(Task& task) {
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<SharedShim> shim = std::move(task.shim);
  if (shim.use_count() > 1) shim.reset();
  return shim;
}

// The connection is closed already, or the shim has answered Shutdown. Kills what stays.
void TaskSupervisor::EndShim(SharedShim& shim) {
  if (shim.child.running() && !shim.child.Wait(options_.shutdown_timeout).ok()) {
    log::Warning("shim did not end by itself and is killed", {{"pid", shim.pid}});
    shim.child.KillAndReap();
  }
  if (!shim.pidfd.ok()) return;
  (void)sys::SignalPidfd(shim.pidfd, SIGKILL);  // Gone already is the usual answer.
  shim.pidfd.Reset();
}

// A shim that has answered Shutdown ends by itself once it has handed in its events; nobody has to
// wait for that, but it is not forgotten either.
void TaskSupervisor::LetShimLeave(SharedShim& shim, const std::string& id) {
  if (!shim.child.running() && !shim.pidfd.ok()) return;
  const auto gone = [leaving = leaving_, pid = shim.pid] {
    absl::MutexLock lock(&leaving->mutex);
    leaving->pids.erase(leaving->pids.find(pid));
  };
  {
    absl::MutexLock lock(&leaving_->mutex);
    leaving_->pids.insert(shim.pid);
  }
  const std::string text = absl::StrCat("shim of ", id);
  if (shim.child.running()) {
    reaper_.Take(std::move(shim.child), text, kLeaveTimeout, gone);
  } else {
    reaper_.Take(std::move(shim.pidfd), text, kLeaveTimeout, gone);
  }
}

}  // namespace gantry::task
