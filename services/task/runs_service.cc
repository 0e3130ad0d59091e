#include "services/task/runs_service.h"

#include <string>
#include <utility>

#include "lib/base/status.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"

namespace gantry::task {
namespace {

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

}  // namespace gantry::task
