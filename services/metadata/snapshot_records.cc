#include "services/metadata/snapshot_records.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "containerd/events/events.pb.h"
#include "lib/base/status.h"
#include "services/metadata/listing.h"
#include "services/metadata/objects.h"

namespace gantry::metadata {
namespace {

std::string ChildKey(const SnapshotPlace& place, absl::string_view parent,
                     absl::string_view child) {
  return JoinKey({place.namespace_name, place.snapshotter, parent, child});
}

// Visits the objects of one snapshotter in all namespaces.
template <typename Message>
absl::Status ForEachOf(const Reader& reader, Table table, const std::string& snapshotter,
                       absl::FunctionRef<void(SnapshotPlace, Message)> visit) {
  auto each = [&](absl::string_view key, absl::string_view value) -> absl::StatusOr<bool> {
    ASSIGN_OR_RETURN(SnapshotPlace place, ParseSnapshotKey(key));
    if (place.snapshotter != snapshotter) return true;
    Message message;
    RETURN_IF_ERROR(ParseStored(table, key, value, message));
    visit(std::move(place), std::move(message));
    return true;
  };
  return reader.Scan(table, "", each);
}

}  // namespace

absl::Status NoSuchSnapshot(const SnapshotPlace& place) {
  return absl::NotFoundError(absl::StrCat("snapshot '", place.key, "' of snapshotter '",
                                          place.snapshotter, "': not found"));
}

Labels InheritedLabels(const Labels& labels) {
  Labels inherited;
  for (const auto& [key, value] : labels) {
    if (key == kLabelSnapshotRef || absl::StartsWith(key, kLabelSnapshotPrefix))
      inherited[key] = value;
  }
  return inherited;
}

absl::StatusOr<SnapshotPlace> ParseSnapshotKey(absl::string_view record_key) {
  const std::vector<absl::string_view> parts = SplitKey(record_key);
  if (parts.size() != 3) return absl::DataLossError("a snapshot has a damaged key");
  return SnapshotPlace{std::string(parts[0]), std::string(parts[1]), std::string(parts[2])};
}

std::string ReadableKey(absl::string_view record_key) {
  return absl::StrJoin(SplitKey(record_key), "/");
}

absl::StatusOr<std::optional<v1::StoredSnapshot>> FindSnapshot(const Reader& reader,
                                                               const SnapshotPlace& place) {
  return Load<v1::StoredSnapshot>(reader, Table::kSnapshots, place.RecordKey());
}

absl::StatusOr<bool> HasChildren(const Reader& reader, const SnapshotPlace& place) {
  ASSIGN_OR_RETURN(std::vector<std::string> children,
                   ListKeys(reader, Table::kSnapshotChildren,
                            JoinPrefix({place.namespace_name, place.snapshotter, place.key}), 1));
  return !children.empty();
}

absl::Status PutSnapshot(Writer& writer, const SnapshotPlace& place,
                         const v1::StoredSnapshot& stored) {
  RETURN_IF_ERROR(Store(writer, Table::kSnapshots, place.RecordKey(), stored));
  if (stored.info().parent().empty()) return absl::OkStatus();
  return writer.Put(Table::kSnapshotChildren, ChildKey(place, stored.info().parent(), place.key),
                    "");
}

absl::Status EraseSnapshot(Writer& writer, const SnapshotPlace& place,
                           const v1::StoredSnapshot& stored) {
  RETURN_IF_ERROR(writer.Delete(Table::kSnapshots, place.RecordKey()).status());
  if (stored.info().parent().empty()) return absl::OkStatus();
  return writer.Delete(Table::kSnapshotChildren, ChildKey(place, stored.info().parent(), place.key))
      .status();
}

absl::StatusOr<std::map<std::string, std::string>> RecordedLayers(const Reader& reader,
                                                                  const std::string& snapshotter) {
  std::map<std::string, std::string> layers;
  RETURN_IF_ERROR(ForEachOf<v1::StoredSnapshot>(
      reader, Table::kSnapshots, snapshotter, [&](SnapshotPlace place, v1::StoredSnapshot stored) {
        layers[stored.backend_key()] = place.RecordKey();
      }));
  return layers;
}

absl::StatusOr<std::vector<OpenCommit>> OpenCommits(const Reader& reader,
                                                    const std::string& snapshotter) {
  std::vector<OpenCommit> commits;
  RETURN_IF_ERROR(ForEachOf<v1::StoredCommit>(
      reader, Table::kCommits, snapshotter, [&](SnapshotPlace place, v1::StoredCommit stored) {
        commits.push_back({std::move(place), std::move(stored)});
      }));
  return commits;
}

absl::StatusOr<std::set<std::string>> CommittingLayers(const Reader& reader,
                                                       const std::string& snapshotter) {
  ASSIGN_OR_RETURN(std::vector<OpenCommit> commits, OpenCommits(reader, snapshotter));
  std::set<std::string> layers;
  for (const OpenCommit& commit : commits) {
    layers.insert(commit.stored.backend_key());
    layers.insert(commit.stored.committed().backend_key());
  }
  return layers;
}

absl::Status FinishCommit(Writer& writer, const OpenCommit& commit) {
  const v1::StoredSnapshot& committed = commit.stored.committed();
  const SnapshotPlace target{commit.place.namespace_name, commit.place.snapshotter,
                             committed.info().name()};
  const Caller caller{target.namespace_name, commit.stored.lease()};
  ASSIGN_OR_RETURN(auto taken, FindSnapshot(writer, target));
  if (taken)
    return absl::AlreadyExistsError(absl::StrCat("snapshot '", target.key, "': already exists"));
  RETURN_IF_ERROR(writer.Delete(Table::kCommits, commit.place.RecordKey()).status());
  ASSIGN_OR_RETURN(auto active, FindSnapshot(writer, commit.place));
  if (active) RETURN_IF_ERROR(EraseSnapshot(writer, commit.place, *active));

  v1::StoredSnapshot stored = committed;
  *stored.mutable_info()->mutable_created_at() = ToProto(writer.now());
  *stored.mutable_info()->mutable_updated_at() = ToProto(writer.now());
  RETURN_IF_ERROR(PutSnapshot(writer, target, stored));
  const std::string resource = absl::StrCat(kSnapshotResource, target.snapshotter);
  // The lease may have ended while the snapshotter worked; the snapshot stands all the same.
  if (absl::Status leased = AddToLease(writer, caller, resource, target.key);
      !absl::IsNotFound(leased)) {
    RETURN_IF_ERROR(leased);
  }
  RETURN_IF_ERROR(RemoveFromLease(writer, caller, resource, commit.place.key));
  containerd::events::SnapshotCommit event;
  event.set_key(commit.place.key);
  event.set_name(target.key);
  event.set_snapshotter(target.snapshotter);
  return PublishEvent(writer, target.namespace_name, "/snapshot/commit", event);
}

absl::Status AbandonCommit(Writer& writer, const OpenCommit& commit) {
  return writer.Delete(Table::kCommits, commit.place.RecordKey()).status();
}

absl::StatusOr<bool> DropRecord(Writer& writer, absl::string_view record_key) {
  ASSIGN_OR_RETURN(SnapshotPlace place, ParseSnapshotKey(record_key));
  ASSIGN_OR_RETURN(auto stored, FindSnapshot(writer, place));
  if (!stored) return true;
  ASSIGN_OR_RETURN(bool has_children, HasChildren(writer, place));
  if (has_children) return false;
  RETURN_IF_ERROR(EraseSnapshot(writer, place, *stored));
  return true;
}

}  // namespace gantry::metadata
