// gantry.engine.v1.Containers on the wire: each handler asks the Engine and translates the answer.
#pragma once

#include "gantry/engine/v1/engine.grpc.pb.h"
#include "services/engine/directory_watcher.h"
#include "services/engine/engine.h"
#include "services/engine/executor.h"

namespace gantry::engine {

// Calls that may park for as long as a container runs use the callback API and hold no thread.
using ContainersBase =
    v1::Containers::WithCallbackMethod_Wait<v1::Containers::WithCallbackMethod_WaitExec<
        v1::Containers::WithCallbackMethod_Stop<v1::Containers::WithCallbackMethod_Restart<
            v1::Containers::WithCallbackMethod_Logs<v1::Containers::Service>>>>>;

// Thread-safe. Borrowed parts outlive it.
class ContainersService final : public ContainersBase {
 public:
  ContainersService(Engine& engine, DirectoryWatcher& watcher)
      : engine_(engine), watcher_(watcher) {}

  // Ends the calls that follow logs; before the server shuts down.
  void Stop() { log_executor_.Stop(); }

  grpc::Status Create(grpc::ServerContext* context, const v1::CreateContainerRequest* request,
                      v1::CreateContainerResponse* response) override;
  grpc::Status Start(grpc::ServerContext* context, const v1::StartContainerRequest* request,
                     v1::StartContainerResponse* response) override;
  grpc::Status Kill(grpc::ServerContext* context, const v1::KillContainerRequest* request,
                    v1::KillContainerResponse* response) override;
  grpc::Status Remove(grpc::ServerContext* context, const v1::RemoveContainerRequest* request,
                      v1::RemoveContainerResponse* response) override;
  grpc::Status Pause(grpc::ServerContext* context, const v1::PauseContainerRequest* request,
                     v1::PauseContainerResponse* response) override;
  grpc::Status Unpause(grpc::ServerContext* context, const v1::UnpauseContainerRequest* request,
                       v1::UnpauseContainerResponse* response) override;
  grpc::Status Rename(grpc::ServerContext* context, const v1::RenameContainerRequest* request,
                      v1::RenameContainerResponse* response) override;
  grpc::Status List(grpc::ServerContext* context, const v1::ListContainersRequest* request,
                    v1::ListContainersResponse* response) override;
  grpc::Status Inspect(grpc::ServerContext* context, const v1::InspectContainerRequest* request,
                       v1::ContainerDetails* response) override;
  grpc::Status Attach(grpc::ServerContext* context, const v1::AttachContainerRequest* request,
                      v1::AttachAddress* response) override;
  grpc::Status Exec(grpc::ServerContext* context, const v1::ExecRequest* request,
                    v1::ExecResponse* response) override;
  grpc::Status Resize(grpc::ServerContext* context, const v1::ResizeRequest* request,
                      v1::ResizeResponse* response) override;
  grpc::Status Top(grpc::ServerContext* context, const v1::TopRequest* request,
                   v1::TopResponse* response) override;

  grpc::Status GetArchive(grpc::ServerContext* context, const v1::GetArchiveRequest* request,
                          grpc::ServerWriter<v1::ArchiveChunk>* writer) override;
  grpc::Status PutArchive(grpc::ServerContext* context,
                          grpc::ServerReader<v1::PutArchiveRequest>* reader,
                          v1::PutArchiveResponse* response) override;

  grpc::ServerUnaryReactor* Wait(grpc::CallbackServerContext* context,
                                 const v1::WaitContainerRequest* request,
                                 v1::WaitContainerResponse* response) override;
  grpc::ServerUnaryReactor* WaitExec(grpc::CallbackServerContext* context,
                                     const v1::WaitExecRequest* request,
                                     v1::WaitExecResponse* response) override;
  grpc::ServerUnaryReactor* Stop(grpc::CallbackServerContext* context,
                                 const v1::StopContainerRequest* request,
                                 v1::StopContainerResponse* response) override;
  grpc::ServerUnaryReactor* Restart(grpc::CallbackServerContext* context,
                                    const v1::RestartContainerRequest* request,
                                    v1::RestartContainerResponse* response) override;
  grpc::ServerWriteReactor<v1::LogEntry>* Logs(grpc::CallbackServerContext* context,
                                               const v1::LogsRequest* request) override;

 private:
  Engine& engine_;
  DirectoryWatcher& watcher_;
  Executor log_executor_{16};
};

// gantry.engine.v1.Volumes. Thread-safe.
class VolumesService final : public v1::Volumes::Service {
 public:
  explicit VolumesService(Engine& engine) : engine_(engine) {}

  grpc::Status Create(grpc::ServerContext* context, const v1::CreateVolumeRequest* request,
                      v1::Volume* response) override;
  grpc::Status List(grpc::ServerContext* context, const v1::ListVolumesRequest* request,
                    v1::ListVolumesResponse* response) override;
  grpc::Status Inspect(grpc::ServerContext* context, const v1::InspectVolumeRequest* request,
                       v1::Volume* response) override;
  grpc::Status Remove(grpc::ServerContext* context, const v1::RemoveVolumeRequest* request,
                      v1::RemoveVolumeResponse* response) override;

 private:
  Engine& engine_;
};

// gantry.engine.v1.Images. Thread-safe.
class ImagesService final : public v1::Images::Service {
 public:
  explicit ImagesService(Engine& engine) : engine_(engine) {}

  grpc::Status Remove(grpc::ServerContext* context, const v1::RemoveImageRequest* request,
                      v1::RemoveImageResponse* response) override;

 private:
  Engine& engine_;
};

// gantry.engine.v1.System. Thread-safe.
class SystemService final : public v1::System::Service {
 public:
  explicit SystemService(Engine& engine) : engine_(engine) {}

  grpc::Status Info(grpc::ServerContext* context, const v1::SystemInfoRequest* request,
                    v1::SystemInfoResponse* response) override;

 private:
  Engine& engine_;
};

}  // namespace gantry::engine
