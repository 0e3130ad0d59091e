#include "services/task/task_supervisor.h"

#include <signal.h>

#include <optional>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "containerd/events/events.pb.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "services/task/shim_connection.h"
#include "services/task/step_timings.h"

namespace gantry::task {
namespace {

namespace v2 = containerd::task::v2;

// A bundle's own files (bundle.h).
constexpr char kExitFile[] = "exit";
constexpr char kEndedFile[] = "shim-ended";
constexpr char kCreatedFile[] = "created";  // Holds the pid; its task was promised to a caller.

constexpr absl::Duration kDeleteCall = absl::Seconds(30);  // The shim drains output for up to 10 s.
constexpr absl::Duration kLeaveTimeout =
    absl::Seconds(15);  // For a shim to hand in its last events.
constexpr absl::Duration kEndingTimeout = absl::Seconds(30);

absl::Time FromProto(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

void SetTime(absl::Time time, google::protobuf::Timestamp* proto) {
  const int64_t nanos = absl::ToUnixNanos(time);
  proto->set_seconds(nanos / 1000000000);
  proto->set_nanos(static_cast<int32_t>(nanos % 1000000000));
}

// Any with the bare type URL that Go compares.
containerd::types::Envelope MakeEnvelope(const std::string& ns, const std::string& topic,
                                         const google::protobuf::Message& event) {
  containerd::types::Envelope envelope;
  SetTime(absl::Now(), envelope.mutable_timestamp());
  envelope.set_namespace_(ns);
  envelope.set_topic(topic);
  envelope.mutable_event()->set_type_url(event.GetDescriptor()->full_name());
  envelope.mutable_event()->set_value(event.SerializeAsString());
  return envelope;
}

template <typename Message>
absl::StatusOr<Message> Parse(const absl::StatusOr<std::string>& payload) {
  RETURN_IF_ERROR(payload.status());
  Message message;
  if (!message.ParseFromString(*payload)) {
    return absl::InternalError(
        absl::StrCat("the shim's answer is not a ", Message::descriptor()->full_name()));
  }
  return message;
}

absl::Status NoTask(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("task '", id, "' does not exist"));
}

std::string LogName(const std::string& ns, const std::string& id) {
  return absl::StrCat(ns, "/", id);
}

bool ConnectionWasLost(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsCancelled(status);
}

}  // namespace

struct TaskSupervisor::Task {
  Task(const std::string& root, std::string task_ns, std::string task_id)
      : ns(std::move(task_ns)), id(std::move(task_id)), bundle(root, ns, id) {}

  const std::string ns;
  const std::string id;
  const Bundle bundle;

  absl::Mutex mutex;
  Phase phase ABSL_GUARDED_BY(mutex) = Phase::kCreating;
  uint32_t pid ABSL_GUARDED_BY(mutex) = 0;
  std::optional<Exit> exit ABSL_GUARDED_BY(mutex);  // Of init.
  std::shared_ptr<ShimConnection> connection ABSL_GUARDED_BY(mutex);
  std::map<std::string, Process> processes ABSL_GUARDED_BY(mutex);

  // Written while creating or adopting, before anybody else sees the task; the two owners of the
  // process are used by whoever brought the task into kEnding or kDeleting.
  ShimSpec spec;
  std::string address;
  sys::Child child;          // Our own shim, when this process started it.
  sys::UniqueFd shim_pidfd;  // Every other shim that told its pid.
};

TaskSupervisor::TaskSupervisor(SupervisorOptions options, ContainerSource& containers,
                               ShimLauncher& launcher, EventForwarder& events, ShimLogs& logs,
                               ChildReaper& reaper, Workers& workers, metrics::Registry& metrics)
    : options_(std::move(options)),
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
    task->child.Release();
    std::shared_ptr<ShimConnection> connection;
    absl::MutexLock lock(&task->mutex);
    connection = std::move(task->connection);
  }
  tasks.clear();
  // Closing connections answers the calls under way, whose callbacks name this object.
  workers_.WaitUntilIdle();
}

// ---- Create ----

absl::StatusOr<std::string> TaskSupervisor::ResolveRuntime(const std::string& name) const {
  std::string runtime = name.empty() ? options_.default_runtime : name;
  if (runtime == "io.containerd.runc.v2" || runtime == "io.containerd.runc.v1") {
    runtime = options_.runc_runtime;
  }
  return FindShimBinary(runtime, options_.search);
}

absl::StatusOr<CreatedTask> TaskSupervisor::Create(CreateParameters parameters) {
  const std::string& id = parameters.request.id();
  RETURN_IF_ERROR(CheckIdentifier("container id", id));
  const std::string context = absl::StrCat("create task '", id, "'");
  auto task = std::make_shared<Task>(options_.bundle_root, parameters.ns, id);
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_)
      return absl::UnavailableError(absl::StrCat(context, ": gantry-task is stopping"));
    if (!tasks_.try_emplace({parameters.ns, id}, task).second) {
      return absl::AlreadyExistsError(
          absl::StrCat(context, ": the container has a task; delete it first"));
    }
  }
  CreatedTask created;
  if (absl::Status failed = CreateSteps(parameters, *task, created); !failed.ok()) {
    UndoCreate(*task);
    Forget(*task);
    return Annotate(failed, context);
  }
  bool lost;
  {
    absl::MutexLock lock(&task->mutex);
    task->phase = Phase::kLive;
    task->pid = created.pid;
    lost = !task->connection->connected();
  }
  CountTasks();
  if (lost) OnClosed(task);  // The shim died after its answer; the callback came too early.
  return created;
}

absl::Status TaskSupervisor::CreateSteps(CreateParameters& parameters, Task& task,
                                         CreatedTask& created) {
  StepTimings timings;
  ASSIGN_OR_RETURN(ContainerRecord record, containers_.Get(task.ns, task.id));
  if (record.spec.empty()) {
    return absl::FailedPreconditionError("the container record has no OCI spec");
  }
  task.spec.ns = task.ns;
  task.spec.id = task.id;
  ASSIGN_OR_RETURN(
      task.spec.binary,
      ResolveRuntime(parameters.runtime_path.empty() ? record.runtime : parameters.runtime_path));
  v2::CreateTaskRequest& request = parameters.request;
  if (request.options().type_url().empty() && !record.options.type_url().empty()) {
    *request.mutable_options() = record.options;
  }
  task.spec.options = request.options();
  timings.Mark("task.lookup");

  absl::Status made = task.bundle.Make(record.spec);
  if (absl::IsAlreadyExists(made)) {
    // Nobody owns it, or the task would be in the map: left by a clean-up that failed.
    RETURN_IF_ERROR(task.bundle.Remove());
    made = task.bundle.Make(record.spec);
  }
  RETURN_IF_ERROR(made);
  request.set_bundle(task.bundle.path());
  timings.Mark("task.bundle");

  ASSIGN_OR_RETURN(LaunchedShim shim, launcher_.Launch(task.spec, task.bundle));
  task.child = std::move(shim.child);
  {
    absl::MutexLock lock(&mutex_);  // Others look at it through the map.
    task.address = shim.bootstrap.address;
  }
  workers_.Post([this] { launcher_.FillPool(); });
  if (shim.log.ok()) logs_.Add(LogName(task.ns, task.id), std::move(shim.log));
  TaskPtr self;
  {
    absl::MutexLock lock(&mutex_);
    self = tasks_[{task.ns, task.id}];
  }
  RETURN_IF_ERROR(Connect(self, shim.bootstrap));
  timings.Mark("task.shim");

  std::shared_ptr<ShimConnection> connection;
  {
    absl::MutexLock lock(&task.mutex);
    connection = task.connection;
  }
  RETURN_IF_ERROR(FAILPOINT("task.create.before_call"));
  const absl::StatusOr<std::string> payload =
      connection->Call("Create", request, options_.create_timeout);
  ASSIGN_OR_RETURN(const v2::CreateTaskResponse response, Parse<v2::CreateTaskResponse>(payload));
  RETURN_IF_ERROR(FAILPOINT("task.create.after_call"));
  timings.Mark("task.create");
  timings.AddFromShim(*payload);
  // From here on a crash of ours leaves a task, not a leak.
  RETURN_IF_ERROR(
      sys::WriteFileAtomically(task.bundle.File(kCreatedFile), absl::StrCat(response.pid())));
  timings.Observe(metrics_);
  created.pid = response.pid();
  created.shim_address = task.address;
  created.timings = timings.Text();
  return absl::OkStatus();
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
  if (task->child.running()) return absl::OkStatus();
  // A shim that is not our child: learn its pid, for the day it has to be killed.
  v2::ConnectRequest request;
  request.set_id(task->id);
  absl::StatusOr<v2::ConnectResponse> response =
      Parse<v2::ConnectResponse>((*connection)->Call("Connect", request, options_.probe_timeout));
  RETURN_IF_ERROR(Annotate(response.status(), "probe the shim"));
  absl::StatusOr<sys::UniqueFd> pidfd = sys::OpenPidfd(static_cast<pid_t>(response->shim_pid()));
  if (pidfd.ok()) task->shim_pidfd = *std::move(pidfd);
  return absl::OkStatus();
}

void TaskSupervisor::UndoCreate(Task& task) {
  std::shared_ptr<ShimConnection> connection;
  {
    absl::MutexLock lock(&task.mutex);
    connection = std::move(task.connection);
  }
  const bool started = !task.address.empty();
  bool clean = false;
  if (connection != nullptr) {
    v2::ShutdownRequest request;
    request.set_id(task.id);
    request.set_now(true);
    clean = connection->Call("Shutdown", request, options_.shutdown_timeout).ok();
    connection.reset();
  }
  EndShim(task);
  // Our own shim undoes a failed Create itself. One that died, and a stranger's, may have left a
  // cgroup, mounts or a process.
  if (started && !(clean && IsOwnShim(task.spec.binary))) {
    if (absl::Status deleted = launcher_.RunDelete(task.spec, task.bundle).status();
        !deleted.ok()) {
      log::Warning("clean-up command of a shim failed", {{"task", task.id}, {"error", deleted}});
    }
  }
  if (absl::Status finished = FinishDelete(task, /*run_delete_command=*/false); !finished.ok()) {
    log::Error("what a failed create left could not be removed; the next start tries again",
               {{"task", task.id}, {"error", finished}});
  }
}

// A stranger's shim may serve a group of containers (contracts/containerd, 5.12): it ends with the
// last.
bool TaskSupervisor::IsShared(const Task& task) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, other] : tasks_) {
    if (other.get() != &task && other->address == task.address) return true;
  }
  return false;
}

// The connection is closed already, or the shim has answered Shutdown. Kills what stays.
void TaskSupervisor::EndShim(Task& task) {
  if (task.child.running() && !task.child.Wait(options_.shutdown_timeout).ok()) {
    log::Warning("shim did not end by itself and is killed", {{"task", task.id}});
    task.child.KillAndReap();
  }
  if (IsShared(task)) task.shim_pidfd.Reset();
  if (task.shim_pidfd.ok()) {
    (void)sys::SignalPidfd(task.shim_pidfd, SIGKILL);  // Gone already is the usual answer.
    task.shim_pidfd.Reset();
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
  logs_.Remove(LogName(task.ns, task.id));
  const std::string work =
      absl::StrCat(launcher_.options().work_directory, "/", task.ns, "/", task.id);
  RETURN_IF_ERROR(sys::RemoveTree(work));
  // Fails while the namespace has others, as it should.
  (void)sys::RemoveEmptyDirectory(work.substr(0, work.rfind('/')));
  if (IsOwnShim(task.spec.binary) && !task.address.empty()) {
    RETURN_IF_ERROR(sys::Unlink(ttrpc::SocketPath(task.address)));
  }
  return task.bundle.Remove();
}

// ---- The end of a shim ----

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
    if (task->phase != Phase::kLive) return;
    task->phase = Phase::kEnding;
    connection = std::move(task->connection);
    exit = task->exit.value_or(Exit{.pid = task->pid, .code = 128 + SIGKILL, .at = absl::Now()});
  }
  log::Warning("a shim ended without being asked; its container is stopped and cleaned up",
               {{"namespace", task->ns}, {"container", task->id}});
  connection.reset();
  EndShim(*task);
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
  logs_.Remove(LogName(task->ns, task->id));
  // Nobody serves it any more, whoever made it.
  (void)sys::Unlink(ttrpc::SocketPath(task->address));

  std::vector<std::string> waited_on;
  {
    absl::MutexLock lock(&task->mutex);
    task->phase = Phase::kEnded;
    task->exit = exit;
    for (const auto& [exec_id, process] : task->processes) waited_on.push_back(exec_id);
  }
  CountTasks();
  PublishExit(task, exit);
  // Execs have died with their container, if not before; nobody knows better how any more.
  for (const std::string& exec_id : waited_on) Complete(task, exec_id, exit);
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
        if (task->phase != Phase::kEnded) return;
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

// ---- Delete ----

absl::StatusOr<Exit> TaskSupervisor::Delete(const std::string& ns, const std::string& id) {
  const std::string context = absl::StrCat("delete task '", id, "'");
  ASSIGN_OR_RETURN(TaskPtr task, Find(ns, id));
  std::shared_ptr<ShimConnection> connection;
  std::optional<Exit> exit;
  bool ended;
  {
    absl::MutexLock lock(&task->mutex);
    const auto settled = [&task]() ABSL_SHARED_LOCKS_REQUIRED(task->mutex) {
      return task->phase != Phase::kEnding;
    };
    if (!task->mutex.AwaitWithTimeout(absl::Condition(&settled), kEndingTimeout)) {
      return absl::UnavailableError(
          absl::StrCat(context, ": its dead shim is still being cleaned up; try again"));
    }
    if (task->phase == Phase::kDeleting) {
      return absl::UnavailableError(absl::StrCat(context, ": another call deletes it"));
    }
    if (task->phase == Phase::kCreating) return NoTask(id);
    ended = task->phase == Phase::kEnded;
    task->phase = Phase::kDeleting;
    exit = task->exit;
    connection = task->connection;
  }
  if (!ended) {
    v2::DeleteRequest request;
    request.set_id(id);
    const absl::StatusOr<v2::DeleteResponse> response =
        Parse<v2::DeleteResponse>(connection->Call("Delete", request, kDeleteCall));
    if (response.ok()) {
      exit = Exit{.pid = response->pid(),
                  .code = response->exit_status(),
                  .at = FromProto(response->exited_at())};
    } else if (!absl::IsNotFound(response.status())) {
      bool lost;
      {
        absl::MutexLock lock(&task->mutex);
        task->phase = Phase::kLive;
        lost = !connection->connected();
      }
      if (lost) OnClosed(task);
      return Annotate(response.status(), context);
    }
    // NotFound: an earlier Delete got through, and we died before we finished it.
    if (absl::Status died = FAILPOINT("task.delete.after_call"); !died.ok()) {
      log::Warning("failpoint", {{"error", died}});
    }
    v2::ShutdownRequest shutdown;
    shutdown.set_id(id);
    const bool leaving = connection->Call("Shutdown", shutdown, options_.shutdown_timeout).ok();
    {
      absl::MutexLock lock(&task->mutex);
      task->connection.reset();
    }
    connection.reset();
    if (leaving) {
      LetShimLeave(*task);
    } else {
      EndShim(*task);
    }
  }
  const Exit result = exit.value_or(Exit{.at = absl::Now()});
  const bool run_delete_command = !ended && !IsOwnShim(task->spec.binary);
  if (absl::Status finished = FinishDelete(*task, run_delete_command); !finished.ok()) {
    absl::MutexLock lock(&task->mutex);
    task->phase = Phase::kEnded;  // The next Delete goes on here.
    task->exit = result;
    return Annotate(finished, context);
  }
  {
    absl::MutexLock lock(&task->mutex);
    task->exit = result;
  }
  if (ended) PublishDelete(*task, result);
  Forget(*task);
  return result;
}

// A shim that has answered Shutdown ends by itself once it has handed in its events; nobody has to
// wait for that, but it is not forgotten either.
void TaskSupervisor::LetShimLeave(Task& task) {
  const std::pair<std::string, std::string> name = {task.ns, task.id};
  const auto gone = [leaving = leaving_, name] {
    absl::MutexLock lock(&leaving->mutex);
    leaving->names.erase(leaving->names.find(name));
  };
  if (IsShared(task)) task.shim_pidfd.Reset();
  if (!task.child.running() && !task.shim_pidfd.ok()) return;
  {
    absl::MutexLock lock(&leaving_->mutex);
    leaving_->names.insert(name);
  }
  const std::string text = absl::StrCat("shim of ", task.id);
  if (task.child.running()) {
    reaper_.Take(std::move(task.child), text, kLeaveTimeout, gone);
  } else {
    reaper_.Take(std::move(task.shim_pidfd), text, kLeaveTimeout, gone);
  }
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
    for (const auto& [exec_id, process] : last->processes) waited_on.push_back(exec_id);
    exit = last->exit;
  }
  for (const std::string& exec_id : waited_on) {
    Complete(last, exec_id, exit ? absl::StatusOr<Exit>(*exit) : NoTask(last->id));
  }
}

// ---- Calls and waits ----

absl::StatusOr<TaskSupervisor::TaskPtr> TaskSupervisor::Find(const std::string& ns,
                                                             const std::string& id) {
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
      case Phase::kCreating:
        connection = nullptr;
        break;
      case Phase::kLive:
        break;
      case Phase::kEnding:
        known = absl::UnavailableError(
            absl::StrCat("task '", id, "': its shim ended and is being cleaned up; try again"));
        break;
      case Phase::kDeleting:
        break;
      case Phase::kEnded:
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
    const bool gone =
        task->phase == Phase::kCreating || (task->phase == Phase::kEnded && !exec_id.empty());
    if (exec_id.empty() && task->exit.has_value()) {
      known = *task->exit;
    } else if (!gone) {
      Process& process = task->processes[exec_id];
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
        const absl::StatusOr<v2::WaitResponse> response = Parse<v2::WaitResponse>(payload);
        if (!response.ok()) return Complete(waited, exec_id, response.status());
        Complete(waited, exec_id,
                 Exit{.code = response->exit_status(), .at = FromProto(response->exited_at())});
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
  const Exit exit{
      .pid = event.pid(), .code = event.exit_status(), .at = FromProto(event.exited_at())};
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

absl::StatusOr<std::string> TaskSupervisor::ShimAddress(const std::string& ns,
                                                        const std::string& id) {
  ASSIGN_OR_RETURN(TaskPtr task, Find(ns, id));
  absl::MutexLock lock(&task->mutex);
  if (task->phase != Phase::kLive) return NoTask(id);
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
    if (task->phase != Phase::kCreating) names.push_back({task->ns, task->id});
  }
  return names;
}

TaskSupervisor::Inventory TaskSupervisor::TakeInventory() {
  Inventory inventory;
  for (const ShimLauncher::Waiting& waiting : launcher_.WaitingShims()) {
    inventory.addresses.push_back(waiting.socket);
    inventory.waiting_pids.push_back(waiting.pid);
  }
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, task] : tasks_) {
    inventory.bundles.push_back(task->bundle.path());
    inventory.addresses.push_back(task->address);
  }
  return inventory;
}

bool TaskSupervisor::IsLeaving(const std::string& ns, const std::string& id) {
  absl::MutexLock lock(&leaving_->mutex);
  return leaving_->names.contains({ns, id});
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
    if (task->phase != Phase::kEnded) ++running;
  }
  metrics_.GetGauge("gantry_task_shims_running", "Shims of tasks that are not deleted.")
      .Set(running);
}

// ---- After a restart ----

void TaskSupervisor::Adopt() {
  absl::StatusOr<std::vector<BundleName>> bundles = ListBundles(options_.bundle_root);
  if (!bundles.ok()) {
    log::Error("bundles cannot be listed; tasks of the last run are not found",
               {{"error", bundles.status()}});
    return;
  }
  {
    // A pool of its own: shims that do not answer take their five seconds side by side.
    Workers adopters(16);
    for (const BundleName& bundle : *bundles) {
      adopters.Post([this, bundle] { AdoptOne(bundle.ns, bundle.id); });
    }
  }
  SweepAfterAdoption();
  CountTasks();
  launcher_.FillPool();
  if (!bundles->empty())
    log::Info("tasks of the last run looked at", {{"bundles", bundles->size()}});
}

void TaskSupervisor::AdoptOne(const std::string& ns, const std::string& id) {
  auto task = std::make_shared<Task>(options_.bundle_root, ns, id);
  task->spec.ns = ns;
  task->spec.id = id;
  const auto remove = [&](const char* why) {
    log::Info("left bundle removed", {{"container", id}, {"why", why}});
    if (absl::Status removed = FinishDelete(*task, /*run_delete_command=*/false); !removed.ok()) {
      log::Error("left bundle could not be removed", {{"container", id}, {"error", removed}});
    }
  };
  const absl::StatusOr<Bootstrap> bootstrap = task->bundle.ReadBootstrap();
  if (!bootstrap.ok()) return remove("its shim was never started");
  task->address = bootstrap->address;
  task->spec.binary = bootstrap->binary;
  if (task->spec.binary.empty()) task->spec.binary = ResolveRuntime("").value_or("");

  uint32_t pid = 0;
  const absl::StatusOr<std::string> created = sys::ReadFile(task->bundle.File(kCreatedFile), 64);
  if (created.ok()) (void)absl::SimpleAtoi(*created, &pid);
  const auto keep = [&](Phase phase) {
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
    return keep(Phase::kEnded);
  }
  if (!IsOwnShim(task->spec.binary)) {
    // Before dialling: its log must be open for a shim to go on.
    if (absl::StatusOr<sys::UniqueFd> log = launcher_.OpenLog(task->bundle); log.ok()) {
      logs_.Add(LogName(ns, id), *std::move(log));
    }
  }
  const absl::Status connected = Connect(task, *bootstrap);
  if (!connected.ok() && !absl::IsDeadlineExceeded(connected)) {
    if (created.ok()) {
      keep(Phase::kLive);
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
    state = Parse<v2::StateResponse>(connection->Call("State", request, options_.probe_timeout));
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
    keep(Phase::kLive);
    if (!connection->connected()) OnClosed(task);
    return;
  }
  pid = state->pid();
  if (!created.ok()) {
    (void)sys::WriteFileAtomically(task->bundle.File(kCreatedFile), absl::StrCat(pid));
  }
  keep(Phase::kLive);
  if (state->status() == containerd::v1::types::STOPPED) {
    const Exit exit{.pid = pid, .code = state->exit_status(), .at = FromProto(state->exited_at())};
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
