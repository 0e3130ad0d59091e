#include "services/engine/containers_service.h"

#include <utility>

#include "lib/base/request_id.h"
#include "lib/base/status.h"
#include "lib/rpc/request_id.h"
#include "lib/rpc/status.h"
#include "services/engine/archive.h"
#include "services/engine/log_stream.h"
#include "services/engine/wait_reactor.h"

namespace gantry::engine {
namespace {

// A stream that only says what is wrong.
class FailedLogs final : public grpc::ServerWriteReactor<v1::LogEntry> {
 public:
  explicit FailedLogs(const absl::Status& status) { Finish(rpc::ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

template <typename T>
grpc::Status Answer(absl::StatusOr<T> result, T* response) {
  if (!result.ok()) return rpc::ToGrpcStatus(result.status());
  *response = *std::move(result);
  return grpc::Status::OK;
}

}  // namespace

grpc::Status ContainersService::Create(grpc::ServerContext*,
                                       const v1::CreateContainerRequest* request,
                                       v1::CreateContainerResponse* response) {
  return Answer(engine_.Create(*request), response);
}

grpc::Status ContainersService::Start(grpc::ServerContext*,
                                      const v1::StartContainerRequest* request,
                                      v1::StartContainerResponse* response) {
  return Answer(engine_.Start(*request), response);
}

grpc::Status ContainersService::Kill(grpc::ServerContext*, const v1::KillContainerRequest* request,
                                     v1::KillContainerResponse*) {
  return rpc::ToGrpcStatus(engine_.Kill(*request));
}

grpc::Status ContainersService::Remove(grpc::ServerContext*,
                                       const v1::RemoveContainerRequest* request,
                                       v1::RemoveContainerResponse*) {
  return rpc::ToGrpcStatus(engine_.Remove(*request));
}

grpc::Status ContainersService::Pause(grpc::ServerContext*,
                                      const v1::PauseContainerRequest* request,
                                      v1::PauseContainerResponse*) {
  return rpc::ToGrpcStatus(engine_.Pause(request->container()));
}

grpc::Status ContainersService::Unpause(grpc::ServerContext*,
                                        const v1::UnpauseContainerRequest* request,
                                        v1::UnpauseContainerResponse*) {
  return rpc::ToGrpcStatus(engine_.Unpause(request->container()));
}

grpc::Status ContainersService::Rename(grpc::ServerContext*,
                                       const v1::RenameContainerRequest* request,
                                       v1::RenameContainerResponse*) {
  return rpc::ToGrpcStatus(engine_.Rename(request->container(), request->new_name()));
}

grpc::Status ContainersService::List(grpc::ServerContext*, const v1::ListContainersRequest* request,
                                     v1::ListContainersResponse* response) {
  return Answer(engine_.List(*request), response);
}

grpc::Status ContainersService::Inspect(grpc::ServerContext*,
                                        const v1::InspectContainerRequest* request,
                                        v1::ContainerDetails* response) {
  return Answer(engine_.Inspect(*request), response);
}

grpc::Status ContainersService::Attach(grpc::ServerContext*,
                                       const v1::AttachContainerRequest* request,
                                       v1::AttachAddress* response) {
  return Answer(engine_.Attach(request->container()), response);
}

grpc::Status ContainersService::Exec(grpc::ServerContext*, const v1::ExecRequest* request,
                                     v1::ExecResponse* response) {
  return Answer(engine_.Exec(*request), response);
}

grpc::Status ContainersService::Resize(grpc::ServerContext*, const v1::ResizeRequest* request,
                                       v1::ResizeResponse*) {
  return rpc::ToGrpcStatus(engine_.Resize(*request));
}

grpc::Status ContainersService::Top(grpc::ServerContext*, const v1::TopRequest* request,
                                    v1::TopResponse* response) {
  return Answer(engine_.Top(*request), response);
}

grpc::Status ContainersService::GetArchive(grpc::ServerContext*,
                                           const v1::GetArchiveRequest* request,
                                           grpc::ServerWriter<v1::ArchiveChunk>* writer) {
  absl::StatusOr<Engine::FileRoot> files =
      engine_.OpenFiles(request->container(), request->path(), false);
  if (!files.ok()) return rpc::ToGrpcStatus(files.status());
  if (!request->stat_only()) engine_.TellCopy(request->container(), request->path(), false);
  return rpc::ToGrpcStatus(SendArchive(files->root, files->path, *request,
                                       [&](const v1::ArchiveChunk& chunk) -> absl::Status {
                                         if (writer->Write(chunk)) return absl::OkStatus();
                                         return absl::CancelledError("the caller has gone");
                                       }));
}

grpc::Status ContainersService::PutArchive(grpc::ServerContext*,
                                           grpc::ServerReader<v1::PutArchiveRequest>* reader,
                                           v1::PutArchiveResponse*) {
  v1::PutArchiveRequest request;
  if (!reader->Read(&request)) {
    return rpc::ToGrpcStatus(absl::InvalidArgumentError("the call ended before its first message"));
  }
  absl::StatusOr<Engine::FileRoot> files =
      engine_.OpenFiles(request.container(), request.path(), true);
  if (!files.ok()) return rpc::ToGrpcStatus(files.status());
  engine_.TellCopy(request.container(), request.path(), true);
  bool first = true;
  v1::PutArchiveRequest piece;
  return rpc::ToGrpcStatus(ReceiveArchive(files->root, files->path, request.copy_ownership(),
                                          [&]() -> absl::StatusOr<absl::string_view> {
                                            // The first message may have data already; an empty one
                                            // in between is not the end.
                                            if (std::exchange(first, false) &&
                                                !request.data().empty())
                                              return request.data();
                                            do {
                                              if (!reader->Read(&piece)) return absl::string_view();
                                            } while (piece.data().empty());
                                            return piece.data();
                                          }));
}

grpc::ServerUnaryReactor* ContainersService::Wait(grpc::CallbackServerContext*,
                                                  const v1::WaitContainerRequest* request,
                                                  v1::WaitContainerResponse* response) {
  std::shared_ptr<WaitReactor> reactor = WaitReactor::Make();
  absl::StatusOr<ContainerPtr> container = engine_.Find(request->container());
  if (!container.ok()) {
    reactor->Answer(container.status());
    return reactor.get();
  }
  const uint64_t ticket =
      (*container)->Wait(request->condition(), [reactor, response](const WaitResult& result) {
        reactor->Answer(result.status, [&] {
          response->set_exit_code(result.exit_code);
          response->set_error(result.error);
          for (const v1::StepTiming& step : result.timings) *response->add_timings() = step;
        });
      });
  if (ticket != 0) {
    reactor->SetCancel([container = *container, ticket] { container->CancelWait(ticket); });
  }
  return reactor.get();
}

grpc::ServerUnaryReactor* ContainersService::WaitExec(grpc::CallbackServerContext*,
                                                      const v1::WaitExecRequest* request,
                                                      v1::WaitExecResponse* response) {
  std::shared_ptr<WaitReactor> reactor = WaitReactor::Make();
  absl::StatusOr<ContainerPtr> container = engine_.Find(request->container());
  if (!container.ok()) {
    reactor->Answer(container.status());
    return reactor.get();
  }
  const uint64_t ticket =
      (*container)
          ->execs()
          .Wait(request->exec_id(), [reactor, response](absl::StatusOr<int32_t> exit_code) {
            reactor->Answer(exit_code.status(), [&] { response->set_exit_code(*exit_code); });
          });
  if (ticket != 0) {
    reactor->SetCancel([container = *container, ticket] { container->execs().CancelWait(ticket); });
  }
  return reactor.get();
}

grpc::ServerUnaryReactor* ContainersService::Stop(grpc::CallbackServerContext* context,
                                                  const v1::StopContainerRequest* request,
                                                  v1::StopContainerResponse*) {
  std::shared_ptr<WaitReactor> reactor = WaitReactor::Make();
  ScopedRequestId scope(rpc::RequestId(*context));
  // A caller that goes away does not call the stop back.
  engine_.StopContainer(*request,
                        [reactor](const absl::Status& status) { reactor->Answer(status); });
  return reactor.get();
}

grpc::ServerUnaryReactor* ContainersService::Restart(grpc::CallbackServerContext* context,
                                                     const v1::RestartContainerRequest* request,
                                                     v1::RestartContainerResponse*) {
  std::shared_ptr<WaitReactor> reactor = WaitReactor::Make();
  ScopedRequestId scope(rpc::RequestId(*context));
  engine_.Restart(*request, [reactor](const absl::Status& status) { reactor->Answer(status); });
  return reactor.get();
}

grpc::ServerWriteReactor<v1::LogEntry>* ContainersService::Logs(grpc::CallbackServerContext*,
                                                                const v1::LogsRequest* request) {
  absl::StatusOr<ContainerPtr> container = engine_.Find(request->container());
  if (!container.ok()) return new FailedLogs(container.status());
  const std::string path = engine_.LogPath(**container);
  if (path.empty()) {
    return new FailedLogs(absl::FailedPreconditionError(
        "configured logging driver does not support reading: the container was made with "
        "--log-driver none"));
  }
  LogOptions options;
  options.want_stdout = request->want_stdout() || !request->want_stderr();
  options.want_stderr = request->want_stderr() || !request->want_stdout();
  options.tail = request->tail();
  options.since = FromProto(request->since());
  if (request->has_until()) options.until = FromProto(request->until());
  return LogStream::Begin(log_executor_, watcher_, *container, path, options, request->follow());
}

grpc::Status VolumesService::Create(grpc::ServerContext*, const v1::CreateVolumeRequest* request,
                                    v1::Volume* response) {
  return Answer(engine_.CreateVolume(*request), response);
}

grpc::Status VolumesService::List(grpc::ServerContext*, const v1::ListVolumesRequest*,
                                  v1::ListVolumesResponse* response) {
  for (v1::Volume& volume : engine_.volumes().List()) *response->add_volumes() = std::move(volume);
  return grpc::Status::OK;
}

grpc::Status VolumesService::Inspect(grpc::ServerContext*, const v1::InspectVolumeRequest* request,
                                     v1::Volume* response) {
  return Answer(engine_.volumes().Inspect(request->name()), response);
}

grpc::Status VolumesService::Remove(grpc::ServerContext*, const v1::RemoveVolumeRequest* request,
                                    v1::RemoveVolumeResponse*) {
  const absl::Status removed = engine_.RemoveVolume(request->name());
  // Forced: what is not there need not be removed.
  if (absl::IsNotFound(removed) && request->force()) return grpc::Status::OK;
  return rpc::ToGrpcStatus(removed);
}

grpc::Status ImagesService::Remove(grpc::ServerContext*, const v1::RemoveImageRequest* request,
                                   v1::RemoveImageResponse* response) {
  return Answer(engine_.RemoveImage(*request), response);
}

grpc::Status SystemService::Info(grpc::ServerContext*, const v1::SystemInfoRequest*,
                                 v1::SystemInfoResponse* response) {
  return Answer(engine_.Info(), response);
}

}  // namespace gantry::engine
