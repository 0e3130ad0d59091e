// gantry.task.v1.Runs on the wire.
#pragma once

#include "gantry/task/v1/task.grpc.pb.h"
#include "services/task/task_supervisor.h"

namespace gantry::task {

// In the trailing metadata of a Run that failed: the task is there and was not started.
inline constexpr char kCreatedTrailer[] = "gantry-run";

// Thread-safe. `supervisor` outlives the service.
class RunsService final : public v1::Runs::Service {
 public:
  explicit RunsService(TaskSupervisor& supervisor) : supervisor_(supervisor) {}

  grpc::Status Run(grpc::ServerContext* context, const v1::RunRequest* request,
                   v1::RunResponse* response) override;

 private:
  TaskSupervisor& supervisor_;
};

}  // namespace gantry::task
