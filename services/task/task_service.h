// containerd.services.tasks.v1.Tasks on the wire.
//
// Calls that a shim answers are parked, not blocked: a stuck shim costs no threads. Create and
// Delete, which start and end shims, run on a thread of the server each.
//
// Beyond the contract, Create, Start and Get answer in their trailing metadata: `gantry-timings`
// ("step=us;step=us") and `gantry-shim-address` (where clients attach, docs/formats/attach.md).
#pragma once

#include "containerd/services/tasks/v1/tasks.grpc.pb.h"
#include "lib/metrics/registry.h"
#include "services/task/task_supervisor.h"

namespace gantry::task {

inline constexpr char kTimingsTrailer[] = "gantry-timings";
inline constexpr char kShimAddressTrailer[] = "gantry-shim-address";

namespace service_internal {
namespace v1 = containerd::services::tasks::v1;
template <typename S>
using Reading = v1::Tasks::WithCallbackMethod_Get<
    v1::Tasks::WithCallbackMethod_List<v1::Tasks::WithCallbackMethod_ListPids<
        v1::Tasks::WithCallbackMethod_Metrics<v1::Tasks::WithCallbackMethod_Wait<S>>>>>;
template <typename S>
using Running = v1::Tasks::WithCallbackMethod_Start<v1::Tasks::WithCallbackMethod_Kill<
    v1::Tasks::WithCallbackMethod_Exec<v1::Tasks::WithCallbackMethod_ResizePty<
        v1::Tasks::WithCallbackMethod_CloseIO<v1::Tasks::WithCallbackMethod_Pause<
            v1::Tasks::WithCallbackMethod_Resume<v1::Tasks::WithCallbackMethod_Update<
                v1::Tasks::WithCallbackMethod_DeleteProcess<S>>>>>>>>>;
using Base = Reading<Running<v1::Tasks::Service>>;
}  // namespace service_internal

// Thread-safe. `supervisor` and `metrics` outlive the service.
class TaskService final : public service_internal::Base {
 public:
  TaskService(TaskSupervisor& supervisor, metrics::Registry& metrics)
      : supervisor_(supervisor), metrics_(metrics) {}

  grpc::Status Create(grpc::ServerContext* context,
                      const containerd::services::tasks::v1::CreateTaskRequest* request,
                      containerd::services::tasks::v1::CreateTaskResponse* response) override;
  grpc::Status Delete(grpc::ServerContext* context,
                      const containerd::services::tasks::v1::DeleteTaskRequest* request,
                      containerd::services::tasks::v1::DeleteResponse* response) override;
  grpc::Status Checkpoint(
      grpc::ServerContext* context,
      const containerd::services::tasks::v1::CheckpointTaskRequest* request,
      containerd::services::tasks::v1::CheckpointTaskResponse* response) override;

  grpc::ServerUnaryReactor* Start(
      grpc::CallbackServerContext* context,
      const containerd::services::tasks::v1::StartRequest* request,
      containerd::services::tasks::v1::StartResponse* response) override;
  grpc::ServerUnaryReactor* DeleteProcess(
      grpc::CallbackServerContext* context,
      const containerd::services::tasks::v1::DeleteProcessRequest* request,
      containerd::services::tasks::v1::DeleteResponse* response) override;
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context,
                                const containerd::services::tasks::v1::GetRequest* request,
                                containerd::services::tasks::v1::GetResponse* response) override;
  grpc::ServerUnaryReactor* List(
      grpc::CallbackServerContext* context,
      const containerd::services::tasks::v1::ListTasksRequest* request,
      containerd::services::tasks::v1::ListTasksResponse* response) override;
  grpc::ServerUnaryReactor* Kill(grpc::CallbackServerContext* context,
                                 const containerd::services::tasks::v1::KillRequest* request,
                                 google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* Exec(grpc::CallbackServerContext* context,
                                 const containerd::services::tasks::v1::ExecProcessRequest* request,
                                 google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* ResizePty(
      grpc::CallbackServerContext* context,
      const containerd::services::tasks::v1::ResizePtyRequest* request,
      google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* CloseIO(grpc::CallbackServerContext* context,
                                    const containerd::services::tasks::v1::CloseIORequest* request,
                                    google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* Pause(grpc::CallbackServerContext* context,
                                  const containerd::services::tasks::v1::PauseTaskRequest* request,
                                  google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* Resume(
      grpc::CallbackServerContext* context,
      const containerd::services::tasks::v1::ResumeTaskRequest* request,
      google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* ListPids(
      grpc::CallbackServerContext* context,
      const containerd::services::tasks::v1::ListPidsRequest* request,
      containerd::services::tasks::v1::ListPidsResponse* response) override;
  grpc::ServerUnaryReactor* Update(
      grpc::CallbackServerContext* context,
      const containerd::services::tasks::v1::UpdateTaskRequest* request,
      google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* Metrics(
      grpc::CallbackServerContext* context,
      const containerd::services::tasks::v1::MetricsRequest* request,
      containerd::services::tasks::v1::MetricsResponse* response) override;
  grpc::ServerUnaryReactor* Wait(grpc::CallbackServerContext* context,
                                 const containerd::services::tasks::v1::WaitRequest* request,
                                 containerd::services::tasks::v1::WaitResponse* response) override;

 private:
  TaskSupervisor& supervisor_;
  metrics::Registry& metrics_;
};

}  // namespace gantry::task
