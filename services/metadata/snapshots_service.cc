#include <utility>

#include "services/metadata/containerd_services.h"
#include "services/metadata/service_call.h"

namespace gantry::metadata {
namespace {

constexpr int kInfosPerMessage = 100;

// PrepareSnapshotRequest and ViewSnapshotRequest have the same fields.
template <typename Request>
Snapshots::CreateRequest ToCreateRequest(const Request& request, Snapshots::Kind kind) {
  Snapshots::CreateRequest create;
  create.snapshotter = request.snapshotter();
  create.key = request.key();
  create.parent = request.parent();
  create.labels = request.labels();
  create.kind = kind;
  return create;
}

}  // namespace

grpc::Status SnapshotsService::Prepare(grpc::ServerContext* context,
                                       const snapshots_v1::PrepareSnapshotRequest* request,
                                       snapshots_v1::PrepareSnapshotResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return AssignAll(snapshots_.Create(caller, ToCreateRequest(*request, snapshots_v1::ACTIVE)),
                     response->mutable_mounts());
  });
}

grpc::Status SnapshotsService::View(grpc::ServerContext* context,
                                    const snapshots_v1::ViewSnapshotRequest* request,
                                    snapshots_v1::ViewSnapshotResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return AssignAll(snapshots_.Create(caller, ToCreateRequest(*request, snapshots_v1::VIEW)),
                     response->mutable_mounts());
  });
}

grpc::Status SnapshotsService::Mounts(grpc::ServerContext* context,
                                      const snapshots_v1::MountsRequest* request,
                                      snapshots_v1::MountsResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return AssignAll(snapshots_.GetMounts(caller, request->snapshotter(), request->key()),
                     response->mutable_mounts());
  });
}

grpc::Status SnapshotsService::Commit(grpc::ServerContext* context,
                                      const snapshots_v1::CommitSnapshotRequest* request,
                                      google::protobuf::Empty*) {
  return InNamespace(context, [&](const Caller& caller) {
    Snapshots::CommitRequest commit;
    commit.snapshotter = request->snapshotter();
    commit.name = request->name();
    commit.key = request->key();
    commit.parent = request->parent();
    commit.labels = request->labels();
    commit.deadline = DeadlineOf(*context);
    return snapshots_.Commit(caller, commit);
  });
}

grpc::Status SnapshotsService::Remove(grpc::ServerContext* context,
                                      const snapshots_v1::RemoveSnapshotRequest* request,
                                      google::protobuf::Empty*) {
  return InNamespace(context, [&](const Caller& caller) {
    return snapshots_.Remove(caller, request->snapshotter(), request->key());
  });
}

grpc::Status SnapshotsService::Stat(grpc::ServerContext* context,
                                    const snapshots_v1::StatSnapshotRequest* request,
                                    snapshots_v1::StatSnapshotResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(snapshots_.Stat(caller, request->snapshotter(), request->key()),
                  response->mutable_info());
  });
}

grpc::Status SnapshotsService::Update(grpc::ServerContext* context,
                                      const snapshots_v1::UpdateSnapshotRequest* request,
                                      snapshots_v1::UpdateSnapshotResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(snapshots_.Update(caller, request->snapshotter(), request->info(),
                                    MaskOf(request->update_mask())),
                  response->mutable_info());
  });
}

grpc::Status SnapshotsService::List(
    grpc::ServerContext* context, const snapshots_v1::ListSnapshotsRequest* request,
    grpc::ServerWriter<snapshots_v1::ListSnapshotsResponse>* writer) {
  return InNamespace(context, [&](const Caller& caller) -> absl::Status {
    ASSIGN_OR_RETURN(std::vector<Snapshots::Info> infos,
                     snapshots_.List(caller, request->snapshotter(), ToVector(request->filters())));
    snapshots_v1::ListSnapshotsResponse chunk;
    for (size_t i = 0; i < infos.size(); ++i) {
      *chunk.add_info() = std::move(infos[i]);
      if (chunk.info_size() < kInfosPerMessage && i + 1 < infos.size()) continue;
      if (!writer->Write(chunk)) return absl::CancelledError("the client went away");
      chunk.Clear();
    }
    return absl::OkStatus();
  });
}

grpc::Status SnapshotsService::Usage(grpc::ServerContext* context,
                                     const snapshots_v1::UsageRequest* request,
                                     snapshots_v1::UsageResponse* response) {
  return InNamespace(context, [&](const Caller& caller) -> absl::Status {
    ASSIGN_OR_RETURN(SnapshotterBackend::Usage usage,
                     snapshots_.GetUsage(caller, request->snapshotter(), request->key()));
    response->set_size(usage.bytes);
    response->set_inodes(usage.inodes);
    return absl::OkStatus();
  });
}

grpc::Status SnapshotsService::Cleanup(grpc::ServerContext* context,
                                       const snapshots_v1::CleanupRequest* request,
                                       google::protobuf::Empty*) {
  return InNamespace(context,
                     [&](const Caller&) { return snapshots_.Cleanup(request->snapshotter()); });
}

}  // namespace gantry::metadata
