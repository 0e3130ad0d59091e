#include "services/metadata/remote_snapshotter.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"

namespace gantry::metadata {
namespace {

namespace v1 = containerd::services::snapshots::v1;

constexpr size_t kMaxListed = 1'000'000;

// Keys begin with their namespace, which the header repeats for the snapshotter's information.
absl::string_view NamespaceOf(absl::string_view key) { return key.substr(0, key.find('/')); }

SnapshotterBackend::Mounts ToMounts(
    google::protobuf::RepeatedPtrField<containerd::types::Mount>* mounts) {
  return SnapshotterBackend::Mounts(std::make_move_iterator(mounts->begin()),
                                    std::make_move_iterator(mounts->end()));
}

}  // namespace

absl::StatusOr<SnapshotterBackend::Mounts> RemoteSnapshotter::Create(const std::string& key,
                                                                     const std::string& parent,
                                                                     const Labels& labels,
                                                                     Kind kind) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kLongCall, NamespaceOf(key));
  if (kind == v1::VIEW) {
    v1::ViewSnapshotRequest request;
    v1::ViewSnapshotResponse response;
    request.set_snapshotter(name_);
    request.set_key(key);
    request.set_parent(parent);
    *request.mutable_labels() = labels;
    grpc::Status status = stub_->View(&context, request, &response);
    if (!status.ok()) return rpc::FromGrpcStatus(status);
    return ToMounts(response.mutable_mounts());
  }
  v1::PrepareSnapshotRequest request;
  v1::PrepareSnapshotResponse response;
  request.set_snapshotter(name_);
  request.set_key(key);
  request.set_parent(parent);
  *request.mutable_labels() = labels;
  grpc::Status status = stub_->Prepare(&context, request, &response);
  if (!status.ok()) return rpc::FromGrpcStatus(status);
  return ToMounts(response.mutable_mounts());
}

absl::StatusOr<SnapshotterBackend::Mounts> RemoteSnapshotter::GetMounts(const std::string& key) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kShortCall, NamespaceOf(key));
  v1::MountsRequest request;
  v1::MountsResponse response;
  request.set_snapshotter(name_);
  request.set_key(key);
  grpc::Status status = stub_->Mounts(&context, request, &response);
  if (!status.ok()) return rpc::FromGrpcStatus(status);
  return ToMounts(response.mutable_mounts());
}

absl::Status RemoteSnapshotter::Commit(const std::string& name, const std::string& key,
                                       const std::string& parent, const Labels& labels) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kLongCall, NamespaceOf(key));
  v1::CommitSnapshotRequest request;
  google::protobuf::Empty response;
  request.set_snapshotter(name_);
  request.set_name(name);
  request.set_key(key);
  request.set_parent(parent);
  *request.mutable_labels() = labels;
  return rpc::FromGrpcStatus(stub_->Commit(&context, request, &response));
}

// The calls of collection come without a namespace, as containerd's do.
absl::Status RemoteSnapshotter::Remove(const std::string& key) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kLongCall);
  v1::RemoveSnapshotRequest request;
  google::protobuf::Empty response;
  request.set_snapshotter(name_);
  request.set_key(key);
  return rpc::FromGrpcStatus(stub_->Remove(&context, request, &response));
}

absl::StatusOr<SnapshotterBackend::Info> RemoteSnapshotter::Stat(const std::string& key) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kShortCall, NamespaceOf(key));
  v1::StatSnapshotRequest request;
  v1::StatSnapshotResponse response;
  request.set_snapshotter(name_);
  request.set_key(key);
  grpc::Status status = stub_->Stat(&context, request, &response);
  if (!status.ok()) return rpc::FromGrpcStatus(status);
  return std::move(*response.mutable_info());
}

absl::StatusOr<SnapshotterBackend::Info> RemoteSnapshotter::Update(
    const Info& info, const std::vector<std::string>& mask) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kShortCall, NamespaceOf(info.name()));
  v1::UpdateSnapshotRequest request;
  v1::UpdateSnapshotResponse response;
  request.set_snapshotter(name_);
  *request.mutable_info() = info;
  for (const std::string& path : mask) request.mutable_update_mask()->add_paths(path);
  grpc::Status status = stub_->Update(&context, request, &response);
  if (!status.ok()) return rpc::FromGrpcStatus(status);
  return std::move(*response.mutable_info());
}

absl::StatusOr<std::vector<SnapshotterBackend::Info>> RemoteSnapshotter::List(
    const std::vector<std::string>& filters) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kLongCall);
  v1::ListSnapshotsRequest request;
  request.set_snapshotter(name_);
  for (const std::string& filter : filters) request.add_filters(filter);
  std::unique_ptr<grpc::ClientReader<v1::ListSnapshotsResponse>> stream =
      stub_->List(&context, request);
  std::vector<Info> infos;
  v1::ListSnapshotsResponse chunk;
  while (stream->Read(&chunk)) {
    for (Info& info : *chunk.mutable_info()) infos.push_back(std::move(info));
    if (infos.size() > kMaxListed) {
      context.TryCancel();
      return absl::ResourceExhaustedError(
          absl::StrCat("snapshotter '", name_, "' lists more than ", kMaxListed, " snapshots"));
    }
  }
  grpc::Status status = stream->Finish();
  if (!status.ok()) return rpc::FromGrpcStatus(status);
  return infos;
}

absl::StatusOr<SnapshotterBackend::Usage> RemoteSnapshotter::GetUsage(const std::string& key) {
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kLongCall, NamespaceOf(key));
  v1::UsageRequest request;
  v1::UsageResponse response;
  request.set_snapshotter(name_);
  request.set_key(key);
  grpc::Status status = stub_->Usage(&context, request, &response);
  if (!status.ok()) return rpc::FromGrpcStatus(status);
  return Usage{response.size(), response.inodes()};
}

absl::Status RemoteSnapshotter::Cleanup() {
  grpc::ClientContext context;
  rpc::PrepareCall(context, rpc::kLongCall);
  v1::CleanupRequest request;
  google::protobuf::Empty response;
  request.set_snapshotter(name_);
  return rpc::FromGrpcStatus(stub_->Cleanup(&context, request, &response));
}

}  // namespace gantry::metadata
