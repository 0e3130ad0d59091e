#include "services/engine/task_client.h"

#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "services/engine/metadata_client.h"
#include "services/engine/peer_call.h"

namespace gantry::engine {
namespace {

namespace tasks = ::containerd::services::tasks::v1;

constexpr absl::string_view kProcess = "task";
constexpr char kCreatedTrailer[] = "gantry-run";  // gantry/task/v1/task.proto

std::string Trailer(const grpc::ClientContext& context, absl::string_view name) {
  const auto& trailers = context.GetServerTrailingMetadata();
  auto found = trailers.find(grpc::string_ref(name.data(), name.size()));
  if (found == trailers.end()) return "";
  return std::string(found->second.data(), found->second.size());
}

// The address as a path: shims announce themselves as "unix:///path".
std::string SocketOf(absl::string_view address) {
  return std::string(absl::StripPrefix(address, "unix://"));
}

std::string ShimSocket(const grpc::ClientContext& context) {
  return SocketOf(Trailer(context, kShimAddressHeader));
}

absl::Time FromProto(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

TaskStatus FromProto(const containerd::v1::types::Process& process) {
  TaskStatus status;
  status.container_id = process.container_id().empty() ? process.id() : process.container_id();
  status.status = process.status();
  status.pid = process.pid();
  status.exit.code = static_cast<int32_t>(process.exit_status());
  status.exit.exited_at = FromProto(process.exited_at());
  return status;
}

}  // namespace

std::vector<v1::StepTiming> ParseTimings(absl::string_view text) {
  std::vector<v1::StepTiming> timings;
  for (absl::string_view item : absl::StrSplit(text, absl::ByAnyChar(",; "), absl::SkipEmpty())) {
    uint32_t depth = 0;
    while (absl::ConsumePrefix(&item, ">")) ++depth;
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(item, absl::MaxSplits('=', 1));
    uint64_t microseconds = 0;
    if (parts.first.empty() || !absl::SimpleAtoi(parts.second, &microseconds)) continue;
    v1::StepTiming& timing = timings.emplace_back();
    timing.set_step(std::string(parts.first));
    timing.set_microseconds(microseconds);
    timing.set_depth(depth);
  }
  return timings;
}

struct TaskClient::PendingWait {
  std::string id;
  std::string exec_id;
  ExitCallback callback;
  // One call; made anew for each attempt.
  std::optional<grpc::ClientContext> context;
  tasks::WaitRequest request;
  tasks::WaitResponse response;
};

TaskClient::TaskClient(const std::shared_ptr<grpc::Channel>& channel,
                       const std::shared_ptr<grpc::Channel>& wait_channel,
                       std::string namespace_name)
    : namespace_(std::move(namespace_name)),
      tasks_(tasks::Tasks::NewStub(channel)),
      runs_(task::v1::Runs::NewStub(channel)),
      waits_(tasks::Tasks::NewStub(wait_channel)) {}

TaskClient::~TaskClient() { CancelWaits(); }

absl::StatusOr<TaskAnswer> TaskClient::Run(const std::string& id, const TaskRun& run,
                                           bool* created) {
  task::v1::RunRequest request;
  request.set_container_id(id);
  request.set_spec(run.spec);
  if (!run.spec.empty()) request.set_runtime(run.runtime);
  *request.mutable_rootfs() = {run.rootfs.begin(), run.rootfs.end()};
  request.set_stdin(run.stdio.in);
  request.set_stdout(run.stdio.out);
  request.set_stderr(run.stdio.err);
  request.set_terminal(run.stdio.terminal);
  request.set_rows(run.rows);
  request.set_columns(run.columns);
  task::v1::RunResponse response;
  RETURN_IF_ERROR(CallOnce(kProcess, rpc::kLongCall, namespace_, [&](grpc::ClientContext& context) {
    const grpc::Status status = runs_->Run(&context, request, &response);
    *created = !Trailer(context, kCreatedTrailer).empty();
    return status;
  }));
  TaskAnswer answer;
  answer.pid = response.pid();
  answer.shim_socket = SocketOf(response.shim_address());
  answer.timings = ParseTimings(response.timings());
  return answer;
}

absl::Status TaskClient::Delete(const std::string& id) {
  tasks::DeleteTaskRequest request;
  request.set_container_id(id);
  tasks::DeleteResponse response;
  const absl::Status status = CallTwice(
      kProcess, rpc::kLongCall, namespace_,
      [&](grpc::ClientContext& context) { return tasks_->Delete(&context, request, &response); });
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

absl::Status TaskClient::DeleteProcess(const std::string& id, const std::string& exec_id) {
  tasks::DeleteProcessRequest request;
  request.set_container_id(id);
  request.set_exec_id(exec_id);
  tasks::DeleteResponse response;
  const absl::Status status =
      CallTwice(kProcess, rpc::kLongCall, namespace_, [&](grpc::ClientContext& context) {
        return tasks_->DeleteProcess(&context, request, &response);
      });
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

absl::Status TaskClient::Kill(const std::string& id, const std::string& exec_id, int signal,
                              bool all) {
  tasks::KillRequest request;
  request.set_container_id(id);
  request.set_exec_id(exec_id);
  request.set_signal(static_cast<uint32_t>(signal));
  request.set_all(all);
  google::protobuf::Empty response;
  return CallOnce(kProcess, rpc::kShortCall, namespace_, [&](grpc::ClientContext& context) {
    return tasks_->Kill(&context, request, &response);
  });
}

absl::Status TaskClient::Pause(const std::string& id) {
  tasks::PauseTaskRequest request;
  request.set_container_id(id);
  google::protobuf::Empty response;
  return CallOnce(kProcess, rpc::kLongCall, namespace_, [&](grpc::ClientContext& context) {
    return tasks_->Pause(&context, request, &response);
  });
}

absl::Status TaskClient::Resume(const std::string& id) {
  tasks::ResumeTaskRequest request;
  request.set_container_id(id);
  google::protobuf::Empty response;
  return CallOnce(kProcess, rpc::kLongCall, namespace_, [&](grpc::ClientContext& context) {
    return tasks_->Resume(&context, request, &response);
  });
}

absl::StatusOr<int64_t> TaskClient::Exec(const std::string& id, const std::string& exec_id,
                                         const std::string& process_json, const TaskStdio& stdio) {
  task::v1::ExecRequest request;
  request.set_container_id(id);
  request.set_exec_id(exec_id);
  request.set_process(process_json);
  request.set_stdin(stdio.in);
  request.set_stdout(stdio.out);
  request.set_stderr(stdio.err);
  request.set_terminal(stdio.terminal);
  task::v1::ExecResponse response;
  RETURN_IF_ERROR(CallOnce(kProcess, rpc::kLongCall, namespace_, [&](grpc::ClientContext& context) {
    return runs_->Exec(&context, request, &response);
  }));
  return response.pid();
}

absl::Status TaskClient::Resize(const std::string& id, const std::string& exec_id, uint32_t rows,
                                uint32_t columns) {
  tasks::ResizePtyRequest request;
  request.set_container_id(id);
  request.set_exec_id(exec_id);
  request.set_height(rows);
  request.set_width(columns);
  google::protobuf::Empty response;
  return CallTwice(kProcess, rpc::kShortCall, namespace_, [&](grpc::ClientContext& context) {
    return tasks_->ResizePty(&context, request, &response);
  });
}

absl::Status TaskClient::CloseStdin(const std::string& id, const std::string& exec_id) {
  tasks::CloseIORequest request;
  request.set_container_id(id);
  request.set_exec_id(exec_id);
  request.set_stdin(true);
  google::protobuf::Empty response;
  return CallTwice(kProcess, rpc::kShortCall, namespace_, [&](grpc::ClientContext& context) {
    return tasks_->CloseIO(&context, request, &response);
  });
}

absl::StatusOr<std::vector<int64_t>> TaskClient::ListPids(const std::string& id) {
  tasks::ListPidsRequest request;
  request.set_container_id(id);
  tasks::ListPidsResponse response;
  RETURN_IF_ERROR(
      CallTwice(kProcess, rpc::kShortCall, namespace_, [&](grpc::ClientContext& context) {
        return tasks_->ListPids(&context, request, &response);
      }));
  std::vector<int64_t> pids;
  for (const auto& process : response.processes()) pids.push_back(process.pid());
  return pids;
}

absl::StatusOr<TaskStatus> TaskClient::Get(const std::string& id) {
  tasks::GetRequest request;
  request.set_container_id(id);
  tasks::GetResponse response;
  std::string shim_socket;
  RETURN_IF_ERROR(
      CallTwice(kProcess, rpc::kShortCall, namespace_, [&](grpc::ClientContext& context) {
        const grpc::Status status = tasks_->Get(&context, request, &response);
        shim_socket = ShimSocket(context);
        return status;
      }));
  TaskStatus status = FromProto(response.process());
  status.shim_socket = std::move(shim_socket);
  return status;
}

absl::StatusOr<std::vector<TaskStatus>> TaskClient::List() {
  tasks::ListTasksRequest request;
  tasks::ListTasksResponse response;
  RETURN_IF_ERROR(CallTwice(
      kProcess, rpc::kLongCall, namespace_,
      [&](grpc::ClientContext& context) { return tasks_->List(&context, request, &response); }));
  std::vector<TaskStatus> statuses;
  for (const auto& process : response.tasks()) statuses.push_back(FromProto(process));
  return statuses;
}

void TaskClient::Wait(const std::string& id, const std::string& exec_id, ExitCallback callback) {
  auto wait = std::make_shared<PendingWait>();
  wait->id = id;
  wait->exec_id = exec_id;
  wait->callback = std::move(callback);
  wait->request.set_container_id(id);
  wait->request.set_exec_id(exec_id);
  SendWait(std::move(wait));
}

void TaskClient::SendWait(std::shared_ptr<PendingWait> wait) {
  PendingWait* const call = wait.get();
  bool cancelled = false;
  {
    absl::MutexLock lock(&mutex_);
    cancelled = cancelled_;
    if (!cancelled) {
      // Under the lock: CancelWaits may know the context of the attempt before.
      call->context.emplace();
      // Without a deadline, unlike all other calls: a container may run for years.
      rpc::PrepareCall(*call->context, absl::InfiniteDuration(), namespace_);
      pending_[call] = &*call->context;
    }
  }
  if (cancelled) {
    call->callback(absl::CancelledError("the engine is stopping"));
    absl::MutexLock lock(&mutex_);
    pending_.erase(call);
    return;
  }
  waits_->async()->Wait(&*call->context, &call->request, &call->response,
                        [this, wait = std::move(wait)](const grpc::Status& status) mutable {
                          PendingWait& done = *wait;
                          if (status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                              status.error_code() == grpc::StatusCode::CANCELLED) {
                            // The task service went away, at once or in good order (or this is
                            // CancelWaits, which the next attempt notices). wait_for_ready paces
                            // the attempts. The old call stays counted until the new one is, so
                            // that CancelWaits misses neither.
                            SendWait(std::move(wait));
                            return;
                          }
                          if (status.ok()) {
                            TaskExit exit;
                            exit.code = static_cast<int32_t>(done.response.exit_status());
                            exit.exited_at = FromProto(done.response.exited_at());
                            done.callback(exit);
                          } else {
                            done.callback(PeerStatus(status, kProcess));
                          }
                          absl::MutexLock lock(&mutex_);
                          pending_.erase(&done);
                        });
}

void TaskClient::CancelWaits() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  for (auto& [wait, context] : pending_) context->TryCancel();
  auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return pending_.empty(); };
  mutex_.Await(absl::Condition(&none));
}

}  // namespace gantry::engine
