#include "snapshotter/snapshot_service.h"

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/filter/filter.h"
#include "lib/rpc/status.h"

namespace gantry::snapshotter {
namespace {

namespace v1 = containerd::services::snapshots::v1;

constexpr int kInfosPerMessage = 100;

template <typename ProtoMap>
Labels FromProto(const ProtoMap& labels) {
  return Labels(labels.begin(), labels.end());
}

void SetTime(absl::Time time, google::protobuf::Timestamp* proto) {
  const int64_t nanos = absl::ToUnixNanos(time);
  proto->set_seconds(nanos / 1000000000);
  proto->set_nanos(static_cast<int32_t>(nanos % 1000000000));
}

v1::Kind ToProto(Kind kind) {
  switch (kind) {
    case Kind::kView:
      return v1::VIEW;
    case Kind::kActive:
      return v1::ACTIVE;
    case Kind::kCommitted:
      return v1::COMMITTED;
  }
  return v1::UNKNOWN;
}

void ToProto(const Info& info, v1::Info* proto) {
  proto->set_name(info.name);
  proto->set_parent(info.parent);
  proto->set_kind(ToProto(info.kind));
  SetTime(info.created_at, proto->mutable_created_at());
  SetTime(info.updated_at, proto->mutable_updated_at());
  for (const auto& [key, value] : info.labels) (*proto->mutable_labels())[key] = value;
}

template <typename Response>
grpc::Status AnswerMounts(const absl::StatusOr<Mounts>& mounts, Response* response) {
  if (!mounts.ok()) return rpc::ToGrpcStatus(mounts.status());
  for (const sys::MountSpec& mount : *mounts) {
    containerd::types::Mount* proto = response->add_mounts();
    proto->set_type(mount.type);
    proto->set_source(mount.source);
    proto->set_target(mount.target);
    for (const std::string& option : mount.options) proto->add_options(option);
  }
  return grpc::Status::OK;
}

absl::Status CheckParentKey(const std::string& parent) {
  return parent.empty() ? absl::OkStatus() : CheckKey("parent", parent);
}

std::optional<std::string> FieldOf(const Info& info, const std::vector<std::string>& path) {
  if (path.size() == 1 && path[0] == "kind") return KindName(info.kind);
  if (path.size() == 1 && path[0] == "name") return info.name;
  if (path.size() == 1 && path[0] == "parent") return info.parent;
  if (path.size() > 1 && path[0] == "labels") {
    const auto found = info.labels.find(filter::JoinPath(path, 1));
    if (found != info.labels.end()) return found->second;
  }
  return std::nullopt;
}

}  // namespace

grpc::Status SnapshotService::Prepare(grpc::ServerContext*,
                                      const v1::PrepareSnapshotRequest* request,
                                      v1::PrepareSnapshotResponse* response) {
  absl::Status valid = CheckKey("key", request->key());
  if (valid.ok()) valid = CheckParentKey(request->parent());
  if (!valid.ok()) return rpc::ToGrpcStatus(valid);
  return AnswerMounts(
      snapshotter_.Prepare(request->key(), request->parent(), FromProto(request->labels())),
      response);
}

grpc::Status SnapshotService::View(grpc::ServerContext*, const v1::ViewSnapshotRequest* request,
                                   v1::ViewSnapshotResponse* response) {
  absl::Status valid = CheckKey("key", request->key());
  if (valid.ok()) valid = CheckParentKey(request->parent());
  if (!valid.ok()) return rpc::ToGrpcStatus(valid);
  return AnswerMounts(
      snapshotter_.View(request->key(), request->parent(), FromProto(request->labels())), response);
}

grpc::Status SnapshotService::Mounts(grpc::ServerContext*, const v1::MountsRequest* request,
                                     v1::MountsResponse* response) {
  return AnswerMounts(snapshotter_.GetMounts(request->key()), response);
}

grpc::Status SnapshotService::Commit(grpc::ServerContext*, const v1::CommitSnapshotRequest* request,
                                     google::protobuf::Empty*) {
  absl::Status valid = CheckKey("name", request->name());
  if (valid.ok()) valid = CheckParentKey(request->parent());
  if (!valid.ok()) return rpc::ToGrpcStatus(valid);
  return rpc::ToGrpcStatus(snapshotter_.Commit(request->key(), request->name(),
                                               FromProto(request->labels()), request->parent()));
}

grpc::Status SnapshotService::Remove(grpc::ServerContext*, const v1::RemoveSnapshotRequest* request,
                                     google::protobuf::Empty*) {
  return rpc::ToGrpcStatus(snapshotter_.Remove(request->key()));
}

grpc::Status SnapshotService::Stat(grpc::ServerContext*, const v1::StatSnapshotRequest* request,
                                   v1::StatSnapshotResponse* response) {
  const absl::StatusOr<Info> info = snapshotter_.Stat(request->key());
  if (!info.ok()) return rpc::ToGrpcStatus(info.status());
  ToProto(*info, response->mutable_info());
  return grpc::Status::OK;
}

grpc::Status SnapshotService::Update(grpc::ServerContext*, const v1::UpdateSnapshotRequest* request,
                                     v1::UpdateSnapshotResponse* response) {
  LabelChange change{.labels = FromProto(request->info().labels())};
  change.replace_all = request->update_mask().paths().empty();
  for (const std::string& path : request->update_mask().paths()) {
    absl::string_view key = path;
    if (path == "labels") {
      change.replace_all = true;
    } else if (absl::ConsumePrefix(&key, "labels.") && !key.empty()) {
      change.paths.emplace_back(key);
    } else {
      return rpc::ToGrpcStatus(absl::InvalidArgumentError(
          absl::StrCat("update snapshot '", request->info().name(), "': field '", path,
                       "' cannot be changed; only labels can")));
    }
  }
  const absl::StatusOr<Info> info = snapshotter_.Update(request->info().name(), change);
  if (!info.ok()) return rpc::ToGrpcStatus(info.status());
  ToProto(*info, response->mutable_info());
  return grpc::Status::OK;
}

grpc::Status SnapshotService::List(grpc::ServerContext*, const v1::ListSnapshotsRequest* request,
                                   grpc::ServerWriter<v1::ListSnapshotsResponse>* writer) {
  const absl::StatusOr<filter::Filter> filter = filter::Filter::ParseAll(request->filters());
  if (!filter.ok()) return rpc::ToGrpcStatus(filter.status());
  v1::ListSnapshotsResponse response;
  for (const Info& info : snapshotter_.List()) {
    const bool matches = filter->Matches(
        [&info](const std::vector<std::string>& path) { return FieldOf(info, path); });
    if (!matches) continue;
    ToProto(info, response.add_info());
    if (response.info_size() < kInfosPerMessage) continue;
    if (!writer->Write(response)) return grpc::Status::OK;  // The caller has gone.
    response.clear_info();
  }
  if (response.info_size() > 0) writer->Write(response);
  return grpc::Status::OK;
}

grpc::Status SnapshotService::Usage(grpc::ServerContext*, const v1::UsageRequest* request,
                                    v1::UsageResponse* response) {
  const absl::StatusOr<snapshotter::Usage> usage = snapshotter_.GetUsage(request->key());
  if (!usage.ok()) return rpc::ToGrpcStatus(usage.status());
  response->set_size(static_cast<int64_t>(usage->bytes));
  response->set_inodes(static_cast<int64_t>(usage->inodes));
  return grpc::Status::OK;
}

grpc::Status SnapshotService::Cleanup(grpc::ServerContext* context, const v1::CleanupRequest*,
                                      google::protobuf::Empty*) {
  absl::Duration timeout = absl::FromChrono(context->deadline() - std::chrono::system_clock::now());
  if (timeout > absl::Minutes(10)) timeout = absl::Minutes(10);  // Bounded without a deadline too.
  return rpc::ToGrpcStatus(snapshotter_.Cleanup(timeout));
}

}  // namespace gantry::snapshotter
