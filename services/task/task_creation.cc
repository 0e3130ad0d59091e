// How a task comes to be (TaskSupervisor::Create), and what undoes it when a step fails.
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"
#include "services/task/shim_connection.h"
#include "services/task/shim_messages.h"
#include "services/task/step_timings.h"
#include "services/task/task.h"
#include "services/task/task_supervisor.h"

namespace gantry::task {
namespace {

namespace v2 = containerd::task::v2;

constexpr absl::Duration kStartTimeout = absl::Minutes(1);

// A call that is on its way. Waits for its answer before it goes.
class ShimCall {
 public:
  ShimCall(ShimConnection& connection, const std::string& method,
           const google::protobuf::MessageLite& request, absl::Duration timeout) {
    connection.CallAsync(method, request, timeout, [this](absl::StatusOr<std::string> answer) {
      answer_ = std::move(answer);
      answered_.Notify();
    });
  }
  ~ShimCall() { (void)Wait(); }
  ShimCall(const ShimCall&) = delete;

  const absl::StatusOr<std::string>& Wait() {
    answered_.WaitForNotification();
    return answer_;
  }

 private:
  absl::StatusOr<std::string> answer_ = absl::UnknownError("not answered");
  absl::Notification answered_;
};

}  // namespace

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
  {
    absl::MutexLock lock(&task->mutex);
    task->phase = Task::Phase::kLive;
    task->pid = created.pid;
  }
  CountTasks();
  EndIfLost(task);
  return created;
}

absl::Status TaskSupervisor::CreateSteps(CreateParameters& parameters, Task& task,
                                         CreatedTask& created) {
  StepTimings timings;
  if (!parameters.record) {
    ASSIGN_OR_RETURN(parameters.record, containers_.Get(task.ns, task.id));
  }
  const ContainerRecord& record = *parameters.record;
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

  ASSIGN_OR_RETURN(const Bootstrap bootstrap, AssignShim(task, record.spec));
  TaskPtr self;
  {
    absl::MutexLock lock(&mutex_);
    self = tasks_[{task.ns, task.id}];
  }
  RETURN_IF_ERROR(Connect(self, bootstrap));
  timings.Mark("task.shim");

  RETURN_IF_ERROR(CallShim(parameters, task, timings, created));
  timings.Observe(metrics_);
  created.shim_address = bootstrap.address;
  created.timings = timings.Text();
  return absl::OkStatus();
}

absl::Status TaskSupervisor::CallShim(const CreateParameters& parameters, Task& task,
                                      StepTimings& timings, CreatedTask& created) {
  std::shared_ptr<ShimConnection> connection;
  {
    absl::MutexLock lock(&task.mutex);
    connection = task.connection;
  }
  RETURN_IF_ERROR(FAILPOINT("task.create.before_call"));
  // Our own shim works off the calls for one container in order, so that all can be sent at once. A
  // creation that fails answers those behind it, too.
  const bool at_once = IsOwnShim(task.spec.binary);
  std::optional<ShimCall> create, resize, start;
  const auto send_start = [&] {
    if (parameters.rows != 0 && parameters.columns != 0) {
      v2::ResizePtyRequest size;
      size.set_id(task.id);
      size.set_height(parameters.rows);
      size.set_width(parameters.columns);
      resize.emplace(*connection, "ResizePty", size, kStartTimeout);
    }
    v2::StartRequest request;
    request.set_id(task.id);
    start.emplace(*connection, "Start", request, kStartTimeout);
  };
  if (parameters.start) created.started = FAILPOINT("task.run.before_start");
  const bool starts = parameters.start && created.started.ok();
  if (at_once) {
    create.emplace(*connection, "Create", parameters.request, options_.create_timeout);
    if (starts) send_start();
  }
  // A stranger's version of the API is known for sure after the first call.
  const absl::StatusOr<std::string> payload =
      at_once ? create->Wait()
              : connection->Call("Create", parameters.request, options_.create_timeout);
  ASSIGN_OR_RETURN(const v2::CreateTaskResponse response,
                   ParseAnswer<v2::CreateTaskResponse>(payload));
  RETURN_IF_ERROR(FAILPOINT("task.create.after_call"));
  timings.AddFromShim(*payload);
  timings.Mark("task.create");
  // From here on a crash of ours leaves a task, not a leak.
  RETURN_IF_ERROR(
      sys::WriteFileAtomically(task.bundle.File(kCreatedFile), absl::StrCat(response.pid())));
  timings.Mark("task.promise");
  created.pid = response.pid();
  if (!starts) return absl::OkStatus();

  if (!start) send_start();
  const absl::StatusOr<std::string>& started = start->Wait();
  created.started = ParseAnswer<v2::StartResponse>(started).status();
  if (started.ok()) timings.AddFromShim(*started);
  timings.Mark("task.start");
  if (resize && !resize->Wait().ok()) {
    log::Warning("the terminal keeps its size",
                 {{"container", task.id}, {"error", resize->Wait().status()}});
  }
  return absl::OkStatus();
}

void TaskSupervisor::UndoCreate(Task& task) {
  std::shared_ptr<ShimConnection> connection;
  {
    absl::MutexLock lock(&task.mutex);
    connection = std::move(task.connection);
  }
  // Our own shim undoes a failed Create itself; this is for what failed after it.
  v2::DeleteRequest remove;
  remove.set_id(task.id);
  bool clean = connection != nullptr && IsOwnShim(task.spec.binary);
  if (connection != nullptr) {
    const absl::Status removed =
        connection->Call("Delete", remove, options_.shutdown_timeout).status();
    clean = clean && (removed.ok() || absl::IsNotFound(removed));
  }
  const bool started = HasShim(task);
  if (const std::shared_ptr<SharedShim> shim = LeaveShim(task); shim != nullptr) {
    v2::ShutdownRequest shutdown;
    shutdown.set_id(task.id);
    clean = connection != nullptr &&
            connection->Call("Shutdown", shutdown, options_.shutdown_timeout).ok() && clean;
    connection.reset();
    EndShim(*shim);
    RemoveSocket(task);
  }
  connection.reset();
  // A shim that died, and a stranger's, may have left a cgroup, mounts or a process.
  if (started && !clean) {
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

}  // namespace gantry::task
