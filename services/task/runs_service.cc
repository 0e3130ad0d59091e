#include "services/task/runs_service.h"

#include <string>
#include <utility>

#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"
#include "services/task/shim_messages.h"
#include "services/task/unary_call.h"

namespace gantry::task {
namespace {

namespace v2 = containerd::task::v2;

constexpr absl::Duration kStartTimeout = absl::Minutes(1);
constexpr char kProcessTypeUrl[] = "types.containerd.io/opencontainers/runtime-spec/1/Process";

CreateParameters ToParameters(const std::string& ns, const v1::RunRequest& request) {
  CreateParameters parameters;
  parameters.ns = ns;
  if (!request.spec().empty()) {
    parameters.record.emplace();
    parameters.record->runtime = request.runtime();
    parameters.record->spec = request.spec();
  }
  containerd::task::v2::CreateTaskRequest& shim_request = parameters.request;
  shim_request.set_id(request.container_id());
  *shim_request.mutable_rootfs() = request.rootfs();
  shim_request.set_terminal(request.terminal());
  shim_request.set_stdin(request.stdin());
  shim_request.set_stdout(request.stdout());
  shim_request.set_stderr(request.stderr());
  parameters.start = true;
  parameters.rows = request.rows();
  parameters.columns = request.columns();
  return parameters;
}

v2::ExecProcessRequest ToShim(const v1::ExecRequest& request) {
  v2::ExecProcessRequest shim_request;
  shim_request.set_id(request.container_id());
  shim_request.set_exec_id(request.exec_id());
  shim_request.set_terminal(request.terminal());
  shim_request.set_stdin(request.stdin());
  shim_request.set_stdout(request.stdout());
  shim_request.set_stderr(request.stderr());
  shim_request.mutable_spec()->set_type_url(kProcessTypeUrl);
  shim_request.mutable_spec()->set_value(request.process());
  return shim_request;
}

}  // namespace

grpc::Status RunsService::Run(grpc::ServerContext* context, const v1::RunRequest* request,
                              v1::RunResponse* response) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::string ns, rpc::RequestNamespace(*context));
    ASSIGN_OR_RETURN(CreatedTask created, supervisor_.Create(ToParameters(ns, *request)));
    if (!created.started.ok()) context->AddTrailingMetadata(kCreatedTrailer, "created");
    RETURN_IF_ERROR(created.started);
    response->set_pid(created.pid);
    response->set_shim_address(std::move(created.shim_address));
    response->set_timings(std::move(created.timings));
    return absl::OkStatus();
  };
  return rpc::ToGrpcStatus(run());
}

grpc::ServerUnaryReactor* RunsService::Exec(grpc::CallbackServerContext* context,
                                            const v1::ExecRequest* request,
                                            v1::ExecResponse* response) {
  auto* call = new UnaryCall();
  const UnaryCall::Answer answer = call->answer();
  const absl::StatusOr<std::string> ns = rpc::RequestNamespace(*context);
  absl::Status valid = ns.status();
  if (valid.ok()) valid = CheckIdentifier("exec id", request->exec_id());
  if (!valid.ok()) {
    answer(rpc::ToGrpcStatus(valid));
    return call;
  }
  v2::StartRequest start;
  start.set_id(request->container_id());
  start.set_exec_id(request->exec_id());
  const auto started = [answer, context, response](const absl::StatusOr<std::string>& payload) {
    answer([&]() -> grpc::Status {
      const absl::StatusOr<v2::StartResponse> shim = ParseAnswer<v2::StartResponse>(payload);
      if (!shim.ok()) {
        context->AddTrailingMetadata(kCreatedTrailer, "created");
        return rpc::ToGrpcStatus(shim.status());
      }
      response->set_pid(shim->pid());
      return grpc::Status::OK;
    });
  };
  supervisor_.Call(*ns, start.id(), "Exec", ToShim(*request), rpc::kShortCall,
                   [this, ns = *ns, start, answer, started](absl::StatusOr<std::string> added) {
                     if (!added.ok()) return answer(rpc::ToGrpcStatus(added.status()));
                     supervisor_.Call(ns, start.id(), "Start", start, kStartTimeout, started);
                   });
  return call;
}

}  // namespace gantry::task
