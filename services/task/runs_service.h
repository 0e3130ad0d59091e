// gantry.task.v1.Runs on the wire. Run uses a thread of the server, as Tasks.Create does; Exec is
// parked while the shim works.
#pragma once

#include "gantry/task/v1/task.grpc.pb.h"
#include "services/task/task_supervisor.h"

namespace gantry::task {

// In the trailing metadata of a call that failed: what it made is there and was not started.
inline constexpr char kCreatedTrailer[] = "gantry-run";

// Thread-safe. `supervisor` outlives the service and all its calls.
class RunsService final : public v1::Runs::WithCallbackMethod_Exec<v1::Runs::Service> {
 public:
  explicit RunsService(TaskSupervisor& supervisor) : supervisor_(supervisor) {}

  grpc::Status Run(grpc::ServerContext* context, const v1::RunRequest* request,
                   v1::RunResponse* response) override;
  grpc::ServerUnaryReactor* Exec(grpc::CallbackServerContext* context,
                                 const v1::ExecRequest* request,
                                 v1::ExecResponse* response) override;

 private:
  TaskSupervisor& supervisor_;
};

}  // namespace gantry::task
