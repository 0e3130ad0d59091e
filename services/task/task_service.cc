#include "services/task/task_service.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/filter/filter.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"
#include "services/task/ask_all.h"
#include "services/task/shim_messages.h"
#include "services/task/step_timings.h"
#include "services/task/unary_call.h"

namespace gantry::task {
namespace {

namespace v1 = containerd::services::tasks::v1;
namespace v2 = containerd::task::v2;

constexpr absl::Duration kStartTimeout = absl::Minutes(1);
constexpr absl::Duration kDrainTimeout = absl::Seconds(30);  // Delete of an exec drains its output.

// The caller's patience, but not more than ours.
absl::Duration TimeLeft(const grpc::ServerContextBase& context, absl::Duration most) {
  const auto left = context.deadline() - std::chrono::system_clock::now();
  if (left > absl::ToChronoNanoseconds(most)) return most;
  return std::max(absl::FromChrono(left), absl::Milliseconds(1));
}

template <typename Message>
absl::Status Read(const absl::StatusOr<std::string>& payload, Message* message) {
  RETURN_IF_ERROR(payload.status());
  if (!message->ParseFromString(*payload)) {
    return absl::InternalError("the shim's answer cannot be read");
  }
  return absl::OkStatus();
}

// A call that the shim answers: checks the namespace, passes `request` on, and has `fill` translate
// the answer (`fill` is not called on errors).
template <typename ShimResponse>
grpc::ServerUnaryReactor* PassOn(
    TaskSupervisor& supervisor, grpc::CallbackServerContext* context, const std::string& id,
    const std::string& method, const google::protobuf::MessageLite& request, absl::Duration timeout,
    std::function<void(const ShimResponse& answer, const std::string& payload)> fill) {
  auto* call = new UnaryCall();
  const UnaryCall::Answer answer = call->answer();
  const absl::StatusOr<std::string> ns = rpc::RequestNamespace(*context);
  if (!ns.ok()) {
    answer(rpc::ToGrpcStatus(ns.status()));
    return call;
  }
  supervisor.Call(*ns, id, method, request, TimeLeft(*context, timeout),
                  [answer, fill = std::move(fill)](absl::StatusOr<std::string> payload) {
                    answer([&]() -> grpc::Status {
                      ShimResponse response;
                      if (absl::Status read = Read(payload, &response); !read.ok()) {
                        return rpc::ToGrpcStatus(read);
                      }
                      fill(response, *payload);
                      return grpc::Status::OK;
                    });
                  });
  return call;
}

// The same for answers without content.
grpc::ServerUnaryReactor* PassOnEmpty(TaskSupervisor& supervisor,
                                      grpc::CallbackServerContext* context, const std::string& id,
                                      const std::string& method,
                                      const google::protobuf::MessageLite& request) {
  return PassOn<google::protobuf::Empty>(supervisor, context, id, method, request, rpc::kShortCall,
                                         [](const google::protobuf::Empty&, const std::string&) {});
}

template <typename ShimRequest>
ShimRequest ForProcess(const std::string& id, const std::string& exec_id) {
  ShimRequest request;
  request.set_id(id);
  request.set_exec_id(exec_id);
  return request;
}

void ToProcess(const v2::StateResponse& state, const std::string& container_id,
               containerd::v1::types::Process* process) {
  process->set_container_id(container_id);
  // Clients print this as the task's name.
  process->set_id(state.exec_id().empty() ? container_id : state.exec_id());
  process->set_pid(state.pid());
  process->set_status(state.status());
  process->set_stdin(state.stdin());
  process->set_stdout(state.stdout());
  process->set_stderr(state.stderr());
  process->set_terminal(state.terminal());
  process->set_exit_status(state.exit_status());
  if (state.has_exited_at()) *process->mutable_exited_at() = state.exited_at();
}

grpc::ServerUnaryReactor* Refuse(const absl::Status& status) {
  auto* call = new UnaryCall();
  const UnaryCall::Answer answer = call->answer();
  answer(rpc::ToGrpcStatus(status));
  return call;
}

}  // namespace

grpc::Status TaskService::Create(grpc::ServerContext* context, const v1::CreateTaskRequest* request,
                                 v1::CreateTaskResponse* response) {
  absl::StatusOr<std::string> ns = rpc::RequestNamespace(*context);
  if (!ns.ok()) return rpc::ToGrpcStatus(ns.status());
  if (!request->task_api_address().empty()) {
    return rpc::ToGrpcStatus(absl::UnimplementedError(
        "create task: sandboxes are not served; leave task_api_address empty"));
  }
  if (request->has_checkpoint() && !request->checkpoint().digest().empty()) {
    return rpc::ToGrpcStatus(
        absl::UnimplementedError("create task: restoring from a checkpoint is not supported"));
  }
  CreateParameters parameters;
  parameters.ns = *ns;
  parameters.runtime_path = request->runtime_path();
  v2::CreateTaskRequest& shim_request = parameters.request;
  shim_request.set_id(request->container_id());
  *shim_request.mutable_rootfs() = request->rootfs();
  shim_request.set_terminal(request->terminal());
  shim_request.set_stdin(request->stdin());
  shim_request.set_stdout(request->stdout());
  shim_request.set_stderr(request->stderr());
  if (request->has_options()) *shim_request.mutable_options() = request->options();
  const absl::StatusOr<CreatedTask> created = supervisor_.Create(std::move(parameters));
  if (!created.ok()) return rpc::ToGrpcStatus(created.status());
  context->AddTrailingMetadata(kTimingsTrailer, created->timings);
  context->AddTrailingMetadata(kShimAddressTrailer, created->shim_address);
  response->set_container_id(request->container_id());
  response->set_pid(created->pid);
  return grpc::Status::OK;
}

grpc::Status TaskService::Delete(grpc::ServerContext* context, const v1::DeleteTaskRequest* request,
                                 v1::DeleteResponse* response) {
  absl::StatusOr<std::string> ns = rpc::RequestNamespace(*context);
  if (!ns.ok()) return rpc::ToGrpcStatus(ns.status());
  const absl::StatusOr<Exit> exit = supervisor_.Delete(*ns, request->container_id());
  if (!exit.ok()) return rpc::ToGrpcStatus(exit.status());
  response->set_pid(exit->pid);
  response->set_exit_status(exit->code);
  SetTime(exit->at, response->mutable_exited_at());
  return grpc::Status::OK;
}

grpc::Status TaskService::Checkpoint(grpc::ServerContext* context,
                                     const v1::CheckpointTaskRequest* request,
                                     v1::CheckpointTaskResponse*) {
  const absl::StatusOr<std::string> ns = rpc::RequestNamespace(*context);
  if (!ns.ok()) return rpc::ToGrpcStatus(ns.status());
  return rpc::ToGrpcStatus(absl::UnimplementedError(absl::StrCat(
      "checkpoint task '", request->container_id(), "': checkpoints are not supported")));
}

grpc::ServerUnaryReactor* TaskService::Start(grpc::CallbackServerContext* context,
                                             const v1::StartRequest* request,
                                             v1::StartResponse* response) {
  auto timings = std::make_shared<StepTimings>();
  const bool exec = !request->exec_id().empty();
  const absl::StatusOr<std::string> ns = rpc::RequestNamespace(*context);
  const std::string address =
      ns.ok() ? supervisor_.ShimAddress(*ns, request->container_id()).value_or("") : "";
  return PassOn<v2::StartResponse>(
      supervisor_, context, request->container_id(), "Start",
      ForProcess<v2::StartRequest>(request->container_id(), request->exec_id()), kStartTimeout,
      [this, context, response, timings, exec, address](const v2::StartResponse& answer,
                                                        const std::string& payload) {
        timings->AddFromShim(payload);
        timings->Mark(exec ? "task.exec" : "task.start");
        timings->Observe(metrics_);
        context->AddTrailingMetadata(kTimingsTrailer, timings->Text());
        if (!address.empty()) context->AddTrailingMetadata(kShimAddressTrailer, address);
        response->set_pid(answer.pid());
      });
}

grpc::ServerUnaryReactor* TaskService::DeleteProcess(grpc::CallbackServerContext* context,
                                                     const v1::DeleteProcessRequest* request,
                                                     v1::DeleteResponse* response) {
  const std::string exec_id = request->exec_id();
  const absl::StatusOr<std::string> ns = rpc::RequestNamespace(*context);
  if (!ns.ok()) return Refuse(ns.status());
  // Without an id this would delete the task behind the supervisor's back.
  if (absl::Status valid = CheckIdentifier("exec id", exec_id); !valid.ok()) return Refuse(valid);
  return PassOn<v2::DeleteResponse>(
      supervisor_, context, request->container_id(), "Delete",
      ForProcess<v2::DeleteRequest>(request->container_id(), exec_id), kDrainTimeout,
      [response, exec_id](const v2::DeleteResponse& answer, const std::string&) {
        response->set_id(exec_id);
        response->set_pid(answer.pid());
        response->set_exit_status(answer.exit_status());
        *response->mutable_exited_at() = answer.exited_at();
      });
}

grpc::ServerUnaryReactor* TaskService::Get(grpc::CallbackServerContext* context,
                                           const v1::GetRequest* request,
                                           v1::GetResponse* response) {
  const std::string id = request->container_id();
  const absl::StatusOr<std::string> ns = rpc::RequestNamespace(*context);
  const std::string address = ns.ok() ? supervisor_.ShimAddress(*ns, id).value_or("") : "";
  return PassOn<v2::StateResponse>(
      supervisor_, context, id, "State", ForProcess<v2::StateRequest>(id, request->exec_id()),
      rpc::kShortCall,
      [context, response, id, address](const v2::StateResponse& state, const std::string&) {
        if (!address.empty()) context->AddTrailingMetadata(kShimAddressTrailer, address);
        ToProcess(state, id, response->mutable_process());
      });
}

grpc::ServerUnaryReactor* TaskService::List(grpc::CallbackServerContext* context,
                                            const v1::ListTasksRequest*,
                                            v1::ListTasksResponse* response) {
  const absl::StatusOr<std::string> ns = rpc::RequestNamespace(*context);
  if (!ns.ok()) return Refuse(ns.status());
  auto* call = new UnaryCall();
  const UnaryCall::Answer answer = call->answer();
  const std::vector<TaskName> names = supervisor_.List(*ns);
  AskAll(supervisor_, names, "State",
         [answer, names, response](std::vector<absl::StatusOr<std::string>> states) {
           answer([&] {
             for (size_t i = 0; i < states.size(); ++i) {
               if (absl::IsNotFound(states[i].status())) continue;  // Deleted meanwhile.
               v2::StateResponse state;  // A shim that does not answer has an unknown status.
               (void)Read(states[i], &state);
               ToProcess(state, names[i].id, response->add_tasks());
             }
             return grpc::Status::OK;
           });
         });
  return call;
}

grpc::ServerUnaryReactor* TaskService::Kill(grpc::CallbackServerContext* context,
                                            const v1::KillRequest* request,
                                            google::protobuf::Empty*) {
  auto shim_request = ForProcess<v2::KillRequest>(request->container_id(), request->exec_id());
  shim_request.set_signal(request->signal());
  shim_request.set_all(request->all());
  return PassOnEmpty(supervisor_, context, request->container_id(), "Kill", shim_request);
}

grpc::ServerUnaryReactor* TaskService::Exec(grpc::CallbackServerContext* context,
                                            const v1::ExecProcessRequest* request,
                                            google::protobuf::Empty*) {
  const absl::StatusOr<std::string> ns = rpc::RequestNamespace(*context);
  if (!ns.ok()) return Refuse(ns.status());
  if (absl::Status valid = CheckIdentifier("exec id", request->exec_id()); !valid.ok()) {
    return Refuse(valid);
  }
  auto shim_request =
      ForProcess<v2::ExecProcessRequest>(request->container_id(), request->exec_id());
  shim_request.set_terminal(request->terminal());
  shim_request.set_stdin(request->stdin());
  shim_request.set_stdout(request->stdout());
  shim_request.set_stderr(request->stderr());
  *shim_request.mutable_spec() = request->spec();
  return PassOnEmpty(supervisor_, context, request->container_id(), "Exec", shim_request);
}

grpc::ServerUnaryReactor* TaskService::ResizePty(grpc::CallbackServerContext* context,
                                                 const v1::ResizePtyRequest* request,
                                                 google::protobuf::Empty*) {
  auto shim_request = ForProcess<v2::ResizePtyRequest>(request->container_id(), request->exec_id());
  shim_request.set_width(request->width());
  shim_request.set_height(request->height());
  return PassOnEmpty(supervisor_, context, request->container_id(), "ResizePty", shim_request);
}

grpc::ServerUnaryReactor* TaskService::CloseIO(grpc::CallbackServerContext* context,
                                               const v1::CloseIORequest* request,
                                               google::protobuf::Empty*) {
  auto shim_request = ForProcess<v2::CloseIORequest>(request->container_id(), request->exec_id());
  shim_request.set_stdin(request->stdin());
  return PassOnEmpty(supervisor_, context, request->container_id(), "CloseIO", shim_request);
}

grpc::ServerUnaryReactor* TaskService::Pause(grpc::CallbackServerContext* context,
                                             const v1::PauseTaskRequest* request,
                                             google::protobuf::Empty*) {
  v2::PauseRequest shim_request;
  shim_request.set_id(request->container_id());
  return PassOnEmpty(supervisor_, context, request->container_id(), "Pause", shim_request);
}

grpc::ServerUnaryReactor* TaskService::Resume(grpc::CallbackServerContext* context,
                                              const v1::ResumeTaskRequest* request,
                                              google::protobuf::Empty*) {
  v2::ResumeRequest shim_request;
  shim_request.set_id(request->container_id());
  return PassOnEmpty(supervisor_, context, request->container_id(), "Resume", shim_request);
}

grpc::ServerUnaryReactor* TaskService::ListPids(grpc::CallbackServerContext* context,
                                                const v1::ListPidsRequest* request,
                                                v1::ListPidsResponse* response) {
  v2::PidsRequest shim_request;
  shim_request.set_id(request->container_id());
  return PassOn<v2::PidsResponse>(supervisor_, context, request->container_id(), "Pids",
                                  shim_request, rpc::kShortCall,
                                  [response](const v2::PidsResponse& answer, const std::string&) {
                                    *response->mutable_processes() = answer.processes();
                                  });
}

grpc::ServerUnaryReactor* TaskService::Update(grpc::CallbackServerContext* context,
                                              const v1::UpdateTaskRequest* request,
                                              google::protobuf::Empty*) {
  v2::UpdateTaskRequest shim_request;
  shim_request.set_id(request->container_id());
  if (request->has_resources()) *shim_request.mutable_resources() = request->resources();
  *shim_request.mutable_annotations() = request->annotations();
  return PassOnEmpty(supervisor_, context, request->container_id(), "Update", shim_request);
}

grpc::ServerUnaryReactor* TaskService::Metrics(grpc::CallbackServerContext* context,
                                               const v1::MetricsRequest* request,
                                               v1::MetricsResponse* response) {
  const absl::StatusOr<std::string> ns = rpc::RequestNamespace(*context);
  if (!ns.ok()) return Refuse(ns.status());
  const absl::StatusOr<filter::Filter> filter = filter::Filter::ParseAll(request->filters());
  if (!filter.ok()) return Refuse(filter.status());
  std::vector<TaskName> names;
  for (const TaskName& name : supervisor_.List(*ns)) {
    const bool matches = filter->Matches(
        [&name](const std::vector<std::string>& path) -> std::optional<std::string> {
          if (path.size() == 1 && path[0] == "id") return name.id;
          if (path.size() == 1 && path[0] == "namespace") return name.ns;
          return std::nullopt;
        });
    if (matches) names.push_back(name);
  }
  auto* call = new UnaryCall();
  const UnaryCall::Answer answer = call->answer();
  AskAll(supervisor_, names, "Stats",
         [answer, names, response](std::vector<absl::StatusOr<std::string>> samples) {
           answer([&] {
             for (size_t i = 0; i < samples.size(); ++i) {
               v2::StatsResponse stats;
               // A task without a cgroup, or one that ends at this moment, has no sample.
               if (!Read(samples[i], &stats).ok()) continue;
               containerd::types::Metric* metric = response->add_metrics();
               SetTime(absl::Now(), metric->mutable_timestamp());
               metric->set_id(names[i].id);
               *metric->mutable_data() = stats.stats();
             }
             return grpc::Status::OK;
           });
         });
  return call;
}

grpc::ServerUnaryReactor* TaskService::Wait(grpc::CallbackServerContext* context,
                                            const v1::WaitRequest* request,
                                            v1::WaitResponse* response) {
  const absl::StatusOr<std::string> ns = rpc::RequestNamespace(*context);
  if (!ns.ok()) return Refuse(ns.status());
  auto* call = new UnaryCall();
  const std::string id = request->container_id();
  const std::string exec_id = request->exec_id();
  const uint64_t ticket = supervisor_.Wait(
      *ns, id, exec_id, [answer = call->answer(), response](absl::StatusOr<Exit> exit) {
        answer([&]() -> grpc::Status {
          if (!exit.ok()) return rpc::ToGrpcStatus(exit.status());
          response->set_exit_status(exit->code);
          SetTime(exit->at, response->mutable_exited_at());
          return grpc::Status::OK;
        });
      });
  if (ticket == 0) return call;
  call->SetOnCancel([this, name = *ns, id, exec_id, ticket] {
    supervisor_.CancelWait(name, id, exec_id, ticket);
  });
  return call;
}

}  // namespace gantry::task
