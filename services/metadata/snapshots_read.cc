// Snapshots as they are: what the snapshotter says of a layer, under our names and labels.
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/filter/filter.h"
#include "services/metadata/listing.h"
#include "services/metadata/objects.h"
#include "services/metadata/snapshots.h"

namespace gantry::metadata {
namespace {

namespace snapshots_v1 = containerd::services::snapshots::v1;
using Info = Snapshots::Info;

// What a client sees: the snapshotter's labels and kind under our name, times and labels.
Info Overlay(Info backend, const v1::StoredSnapshot& stored) {
  const Info& ours = stored.info();
  backend.set_name(ours.name());
  backend.set_parent(ours.parent());
  *backend.mutable_created_at() = ours.created_at();
  *backend.mutable_updated_at() = ours.updated_at();
  for (const auto& [key, value] : ours.labels()) (*backend.mutable_labels())[key] = value;
  return backend;
}

std::optional<std::string> Field(const Info& info, const std::vector<std::string>& path) {
  if (path.size() == 1 && path[0] == "name") return TextField(info.name());
  if (path.size() == 1 && path[0] == "parent") return TextField(info.parent());
  if (path.size() == 1 && path[0] == "kind") {
    switch (info.kind()) {
      case snapshots_v1::VIEW:
        return "view";
      case snapshots_v1::ACTIVE:
        return "active";
      case snapshots_v1::COMMITTED:
        return "committed";
      default:
        return std::nullopt;
    }
  }
  if (path.size() > 1 && path[0] == "labels") return LabelField(info.labels(), path);
  return std::nullopt;
}

}  // namespace

absl::StatusOr<Snapshots::Mounts> Snapshots::GetMounts(const Caller& caller,
                                                       const std::string& snapshotter,
                                                       const std::string& key) {
  ASSIGN_OR_RETURN(SnapshotterBackend * backend, Backend(snapshotter));
  ASSIGN_OR_RETURN(v1::StoredSnapshot stored, Recorded({caller.namespace_name, snapshotter, key}));
  return backend->GetMounts(stored.backend_key());
}

absl::StatusOr<Info> Snapshots::Stat(const Caller& caller, const std::string& snapshotter,
                                     const std::string& key) {
  ASSIGN_OR_RETURN(SnapshotterBackend * backend, Backend(snapshotter));
  ASSIGN_OR_RETURN(v1::StoredSnapshot stored, Recorded({caller.namespace_name, snapshotter, key}));
  absl::StatusOr<Info> info = backend->Stat(stored.backend_key());
  if (absl::IsNotFound(info.status())) sweeper_.RequestRepair(snapshotter);
  if (!info.ok()) return info.status();
  return Overlay(*std::move(info), stored);
}

absl::StatusOr<Info> Snapshots::Update(const Caller& caller, const std::string& snapshotter,
                                       const Info& wanted, const std::vector<std::string>& mask) {
  ASSIGN_OR_RETURN(SnapshotterBackend * backend, Backend(snapshotter));
  RETURN_IF_ERROR(CheckKey("snapshot name", wanted.name(), kMaxSnapshotKeyBytes));
  RETURN_IF_ERROR(CheckLabels(wanted.labels()));
  const SnapshotPlace place{caller.namespace_name, snapshotter, wanted.name()};
  v1::StoredSnapshot stored;
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(auto found, FindSnapshot(writer, place));
    if (!found) return NoSuchSnapshot(place);
    stored = *std::move(found);
    Labels& labels = *stored.mutable_info()->mutable_labels();
    if (mask.empty()) labels = wanted.labels();
    for (const std::string& path : mask) {
      if (!ApplyLabelPath(path, "labels", wanted.labels(), labels)) {
        return absl::InvalidArgumentError(
            absl::StrCat("cannot update the field '", path, "' of snapshot '", place.key, "'"));
      }
    }
    DropEmptyLabels(labels);
    *stored.mutable_info()->mutable_updated_at() = ToProto(writer.now());
    return Store(writer, Table::kSnapshots, place.RecordKey(), stored);
  }));
  // A label of ours may be the last thing that kept something.
  on_garbage_();
  Info inner;
  inner.set_name(stored.backend_key());
  *inner.mutable_labels() = InheritedLabels(stored.info().labels());
  ASSIGN_OR_RETURN(Info info, backend->Update(inner, {"labels"}));
  return Overlay(std::move(info), stored);
}

absl::StatusOr<std::vector<Info>> Snapshots::List(const Caller& caller,
                                                  const std::string& snapshotter,
                                                  const std::vector<std::string>& filters) {
  ASSIGN_OR_RETURN(SnapshotterBackend * backend, Backend(snapshotter));
  ASSIGN_OR_RETURN(filter::Filter filter, filter::Filter::Parse(filters));
  ASSIGN_OR_RETURN(std::vector<Info> infos, backend->List({}));
  std::map<std::string, Info*> layers;
  for (Info& info : infos) layers[info.name()] = &info;

  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  std::vector<Info> matching;
  auto visit = [&](absl::string_view key, absl::string_view value) -> absl::StatusOr<bool> {
    v1::StoredSnapshot stored;
    RETURN_IF_ERROR(ParseStored(Table::kSnapshots, key, value, stored));
    auto layer = layers.find(stored.backend_key());
    if (layer == layers.end()) return true;  // Made or removed since the snapshotter answered.
    Info info = Overlay(*layer->second, stored);
    if (filter.Matches([&](const auto& path) { return Field(info, path); }))
      matching.push_back(std::move(info));
    return true;
  };
  RETURN_IF_ERROR(
      reader.Scan(Table::kSnapshots, JoinPrefix({caller.namespace_name, snapshotter}), visit));
  return matching;
}

absl::StatusOr<SnapshotterBackend::Usage> Snapshots::GetUsage(const Caller& caller,
                                                              const std::string& snapshotter,
                                                              const std::string& key) {
  ASSIGN_OR_RETURN(SnapshotterBackend * backend, Backend(snapshotter));
  ASSIGN_OR_RETURN(v1::StoredSnapshot stored, Recorded({caller.namespace_name, snapshotter, key}));
  return backend->GetUsage(stored.backend_key());
}

absl::Status Snapshots::Cleanup(const std::string& snapshotter) {
  ASSIGN_OR_RETURN(SnapshotterBackend * backend, Backend(snapshotter));
  return backend->Cleanup();
}

}  // namespace gantry::metadata
