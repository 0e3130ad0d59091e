#include "services/metadata/snapshots.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "containerd/events/events.pb.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "services/metadata/objects.h"

namespace gantry::metadata {
namespace {

namespace snapshots_v1 = containerd::services::snapshots::v1;
using Info = Snapshots::Info;

absl::Status Taken(absl::string_view key) {
  return absl::AlreadyExistsError(absl::StrCat("snapshot '", key, "': already exists"));
}

std::string ResourceType(const SnapshotPlace& place) {
  return absl::StrCat(kSnapshotResource, place.snapshotter);
}

// Whether the call may have had its effect though it failed.
bool IsAmbiguous(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsCancelled(status) || absl::IsUnknown(status) || absl::IsInternal(status);
}

}  // namespace

absl::StatusOr<SnapshotterBackend*> Snapshots::Backend(const std::string& snapshotter) const {
  auto found = backends_.find(snapshotter);
  if (found == backends_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("snapshotter '", snapshotter, "' is not configured"));
  }
  return found->second.get();
}

absl::StatusOr<v1::StoredSnapshot> Snapshots::Recorded(const SnapshotPlace& place) const {
  RETURN_IF_ERROR(CheckKey("snapshot key", place.key, kMaxSnapshotKeyBytes));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  ASSIGN_OR_RETURN(auto stored, FindSnapshot(reader, place));
  if (!stored) return NoSuchSnapshot(place);
  return *std::move(stored);
}

// Answers the backend key of the parent, or why the snapshot cannot be made. What is there already
// is leased all the same: the client is about to use it.
absl::StatusOr<std::string> Snapshots::CheckFree(const Caller& caller, const CreateRequest& request,
                                                 const SnapshotPlace& place) {
  const std::string target = LabelOr(request.labels, kLabelSnapshotRef);
  std::string backend_parent, present;
  {
    ASSIGN_OR_RETURN(Reader reader, database_.Read());
    for (const std::string& key : {target, request.key}) {
      if (key.empty()) continue;
      ASSIGN_OR_RETURN(auto found,
                       FindSnapshot(reader, {place.namespace_name, place.snapshotter, key}));
      if (found && present.empty()) present = key;
    }
    if (present.empty() && !request.parent.empty()) {
      const SnapshotPlace parent{place.namespace_name, place.snapshotter, request.parent};
      ASSIGN_OR_RETURN(auto found, FindSnapshot(reader, parent));
      if (!found) return Annotate(NoSuchSnapshot(parent), "parent");
      backend_parent = found->backend_key();
    }
  }
  if (present.empty()) return backend_parent;
  if (!caller.lease.empty()) {
    RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) {
      return AddToLease(writer, caller, ResourceType(place), present);
    }));
  }
  return Taken(present);
}

absl::StatusOr<Snapshots::Prepared> Snapshots::Prepare(const Caller& caller,
                                                       const CreateRequest& request) {
  ASSIGN_OR_RETURN(SnapshotterBackend * backend, Backend(request.snapshotter));
  RETURN_IF_ERROR(CheckKey("snapshot key", request.key, kMaxSnapshotKeyBytes));
  if (!request.parent.empty())
    RETURN_IF_ERROR(CheckKey("snapshot parent", request.parent, kMaxSnapshotKeyBytes));
  RETURN_IF_ERROR(CheckLabels(request.labels));

  Prepared prepared;
  prepared.place = {caller.namespace_name, request.snapshotter, request.key};
  ASSIGN_OR_RETURN(prepared.backend_parent, CheckFree(caller, request, prepared.place));
  ASSIGN_OR_RETURN(prepared.protection,
                   sweeper_.NewKey(request.snapshotter, caller.namespace_name, request.key));
  Info& info = *prepared.stored.mutable_info();
  info.set_name(request.key);
  info.set_parent(request.parent);
  info.set_kind(request.kind);
  *info.mutable_labels() = request.labels;
  DropEmptyLabels(*info.mutable_labels());
  prepared.stored.set_backend_key(prepared.protection.key());

  RETURN_IF_ERROR(FAILPOINT("metadata.snapshots.before_create"));
  absl::StatusOr<Mounts> mounts =
      backend->Create(prepared.stored.backend_key(), prepared.backend_parent,
                      InheritedLabels(info.labels()), request.kind);
  prepared.made = true;
  if (mounts.ok()) {
    prepared.mounts = *std::move(mounts);
    if (absl::Status hit = FAILPOINT("metadata.snapshots.after_create"); !hit.ok()) {
      Undo(prepared);
      return hit;
    }
    return prepared;
  }
  const std::string target = LabelOr(info.labels(), kLabelSnapshotRef);
  if (absl::IsAlreadyExists(mounts.status())) {
    prepared.made = false;
    if (!target.empty()) {
      RETURN_IF_ERROR(AdoptTarget(*backend, target, prepared));
      return prepared;
    }
    // Our keys are new each time: clients must not take this for a snapshot of theirs.
    return absl::UnknownError(absl::StrCat("snapshotter '", request.snapshotter,
                                           "' says a new key exists: ", mounts.status().message()));
  }
  if (IsAmbiguous(mounts.status())) {
    Undo(prepared);
    sweeper_.RequestRepair(request.snapshotter);
  }
  return Annotate(mounts.status(), absl::StrCat("prepare snapshot '", request.key, "' in '",
                                                request.snapshotter, "'"));
}

// The snapshotter has the layer that the label names: finds it and records it under that name.
absl::Status Snapshots::AdoptTarget(SnapshotterBackend& backend, const std::string& target,
                                    Prepared& prepared) {
  RETURN_IF_ERROR(CheckKey("snapshot target", target, kMaxSnapshotKeyBytes));
  ASSIGN_OR_RETURN(
      std::vector<Info> infos,
      backend.List({absl::StrCat("labels.\"", kLabelSnapshotRef, "\"==\"", target, "\"")}));
  for (const Info& info : infos) {
    if (info.kind() != snapshots_v1::COMMITTED || info.parent() != prepared.backend_parent ||
        LabelOr(info.labels(), kLabelSnapshotRef) != target) {
      continue;
    }
    prepared.target = true;
    prepared.place.key = target;
    prepared.protection =
        BackendSweeper::Protection(&sweeper_, prepared.place.snapshotter, info.name());
    prepared.stored.set_backend_key(info.name());
    Info& ours = *prepared.stored.mutable_info();
    ours.set_name(target);
    ours.set_kind(snapshots_v1::COMMITTED);
    // What the client asked for wins over what the snapshotter says.
    for (const auto& [key, value] : info.labels()) {
      if (ours.labels().find(key) == ours.labels().end()) (*ours.mutable_labels())[key] = value;
    }
    return absl::OkStatus();
  }
  return absl::NotFoundError(
      absl::StrCat("target snapshot '", target, "' in the snapshotter: not found"));
}

absl::Status Snapshots::RecordIn(Writer& writer, const Caller& caller, Prepared& prepared) const {
  const SnapshotPlace& place = prepared.place;
  RETURN_IF_ERROR(EnsureNamespace(writer, caller.namespace_name));
  RETURN_IF_ERROR(AddToLease(writer, caller, ResourceType(place), place.key));
  ASSIGN_OR_RETURN(auto taken, FindSnapshot(writer, place));
  if (taken) return prepared.target ? absl::OkStatus() : Taken(place.key);
  Info& info = *prepared.stored.mutable_info();
  if (!info.parent().empty()) {
    const SnapshotPlace parent{place.namespace_name, place.snapshotter, info.parent()};
    ASSIGN_OR_RETURN(auto found, FindSnapshot(writer, parent));
    if (!found) return Annotate(NoSuchSnapshot(parent), "parent");
    if (found->backend_key() != prepared.backend_parent) {
      return absl::AbortedError(
          absl::StrCat("parent '", parent.key, "' was replaced meanwhile; try again"));
    }
  }
  *info.mutable_created_at() = ToProto(writer.now());
  *info.mutable_updated_at() = ToProto(writer.now());
  RETURN_IF_ERROR(PutSnapshot(writer, place, prepared.stored));
  if (info.kind() == snapshots_v1::VIEW)
    return absl::OkStatus();  // containerd says nothing of views.
  containerd::events::SnapshotPrepare event;
  event.set_key(place.key);
  event.set_parent(info.parent());
  event.set_snapshotter(place.snapshotter);
  return PublishEvent(writer, place.namespace_name, "/snapshot/prepare", event);
}

void Snapshots::Undo(Prepared& prepared) {
  if (prepared.made) sweeper_.Remove(prepared.place.snapshotter, {prepared.stored.backend_key()});
  prepared.made = false;
}

absl::StatusOr<Snapshots::Mounts> Snapshots::Create(const Caller& caller,
                                                    const CreateRequest& request) {
  ASSIGN_OR_RETURN(Prepared prepared, Prepare(caller, request));
  absl::Status recorded = database_.Write(
      Database::Purpose::kGrow, [&](Writer& writer) { return RecordIn(writer, caller, prepared); });
  if (!recorded.ok()) {
    Undo(prepared);
    return recorded;
  }
  if (prepared.target) return Taken(prepared.place.key);
  return std::move(prepared.mounts);
}

absl::StatusOr<OpenCommit> Snapshots::BeginCommit(const Caller& caller,
                                                  const CommitRequest& request,
                                                  const std::string& backend_name,
                                                  std::string* backend_parent) {
  OpenCommit commit;
  commit.place = {caller.namespace_name, request.snapshotter, request.key};
  const SnapshotPlace target{caller.namespace_name, request.snapshotter, request.name};
  bool taken = false;
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(auto present, FindSnapshot(writer, target));
    taken = present.has_value();
    if (taken) return AddToLease(writer, caller, ResourceType(target), target.key);
    ASSIGN_OR_RETURN(auto active, FindSnapshot(writer, commit.place));
    if (!active) return NoSuchSnapshot(commit.place);
    if (active->info().kind() != snapshots_v1::ACTIVE) {
      return absl::FailedPreconditionError(absl::StrCat(
          "snapshot '", request.key, "' is not active; only active ones can be committed"));
    }
    ASSIGN_OR_RETURN(auto open, writer.Find(Table::kCommits, commit.place.RecordKey()));
    if (open) {
      return absl::UnavailableError(
          absl::StrCat("snapshot '", request.key, "' is being committed; try again"));
    }
    std::string parent = active->info().parent();
    if (!request.parent.empty() && request.parent != parent) {
      if (!parent.empty()) {
        return absl::InvalidArgumentError(absl::StrCat("snapshot '", request.key, "' stands on '",
                                                       parent, "' and cannot be put on '",
                                                       request.parent, "'"));
      }
      const SnapshotPlace base{caller.namespace_name, request.snapshotter, request.parent};
      ASSIGN_OR_RETURN(auto found, FindSnapshot(writer, base));
      if (!found) return Annotate(NoSuchSnapshot(base), "parent");
      parent = request.parent;
      *backend_parent = found->backend_key();
    }
    v1::StoredSnapshot& committed = *commit.stored.mutable_committed();
    committed.set_backend_key(backend_name);
    committed.mutable_info()->set_name(request.name);
    committed.mutable_info()->set_parent(parent);
    committed.mutable_info()->set_kind(snapshots_v1::COMMITTED);
    *committed.mutable_info()->mutable_labels() = request.labels;
    DropEmptyLabels(*committed.mutable_info()->mutable_labels());
    commit.stored.set_key(request.key);
    commit.stored.set_backend_key(active->backend_key());
    commit.stored.set_lease(caller.lease);
    return Store(writer, Table::kCommits, commit.place.RecordKey(), commit.stored);
  }));
  if (taken) return Taken(request.name);
  return commit;
}

absl::Status Snapshots::Commit(const Caller& caller, const CommitRequest& request) {
  ASSIGN_OR_RETURN(SnapshotterBackend * backend, Backend(request.snapshotter));
  RETURN_IF_ERROR(CheckKey("snapshot name", request.name, kMaxSnapshotKeyBytes));
  RETURN_IF_ERROR(CheckKey("snapshot key", request.key, kMaxSnapshotKeyBytes));
  if (!request.parent.empty())
    RETURN_IF_ERROR(CheckKey("snapshot parent", request.parent, kMaxSnapshotKeyBytes));
  RETURN_IF_ERROR(CheckLabels(request.labels));
  // Two pulls of one layer commit to the same name: the second finds it taken and keeps its own
  // layer.
  ASSIGN_OR_RETURN(KeyGate::Holder holder,
                   gate_.Enter(JoinKey({caller.namespace_name, request.snapshotter, request.name}),
                               request.deadline));
  ASSIGN_OR_RETURN(BackendSweeper::Protection protection,
                   sweeper_.NewKey(request.snapshotter, caller.namespace_name, request.name));
  std::string backend_parent;
  ASSIGN_OR_RETURN(OpenCommit commit,
                   BeginCommit(caller, request, protection.key(), &backend_parent));
  sweeper_.BeginCommit(commit.stored.backend_key());
  absl::Cleanup end = [&] { sweeper_.EndCommit(commit.stored.backend_key()); };

  RETURN_IF_ERROR(FAILPOINT("metadata.snapshots.before_commit"));
  absl::Status done = backend->Commit(protection.key(), commit.stored.backend_key(), backend_parent,
                                      InheritedLabels(request.labels));
  if (done.ok()) done = FAILPOINT("metadata.snapshots.after_commit");
  if (done.ok()) {
    return database_.Write(Database::Purpose::kGrow,
                           [&](Writer& writer) { return FinishCommit(writer, commit); });
  }
  if (IsAmbiguous(done)) {
    // Repair asks the snapshotter what became of it.
    sweeper_.RequestRepair(request.snapshotter);
  } else {
    RETURN_IF_ERROR(database_.Write(Database::Purpose::kFree,
                                    [&](Writer& writer) { return AbandonCommit(writer, commit); }));
  }
  return Annotate(done,
                  absl::StrCat("commit snapshot '", request.key, "' as '", request.name, "'"));
}

absl::StatusOr<std::string> Snapshots::RemoveIn(Writer& writer, const Caller& caller,
                                                const SnapshotPlace& place) const {
  ASSIGN_OR_RETURN(auto stored, FindSnapshot(writer, place));
  if (!stored) return NoSuchSnapshot(place);
  ASSIGN_OR_RETURN(bool has_children, HasChildren(writer, place));
  if (has_children) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot remove snapshot '", place.key,
                     "': other snapshots stand on it; remove those first"));
  }
  ASSIGN_OR_RETURN(auto open, writer.Find(Table::kCommits, place.RecordKey()));
  if (open) {
    return absl::FailedPreconditionError(
        absl::StrCat("snapshot '", place.key, "' is being committed"));
  }
  RETURN_IF_ERROR(EraseSnapshot(writer, place, *stored));
  RETURN_IF_ERROR(RemoveFromLease(writer, caller, ResourceType(place), place.key));
  containerd::events::SnapshotRemove event;
  event.set_key(place.key);
  event.set_snapshotter(place.snapshotter);
  RETURN_IF_ERROR(PublishEvent(writer, place.namespace_name, "/snapshot/remove", event));
  return stored->backend_key();
}

absl::Status Snapshots::Remove(const Caller& caller, const std::string& snapshotter,
                               const std::string& key) {
  RETURN_IF_ERROR(Backend(snapshotter).status());
  RETURN_IF_ERROR(CheckKey("snapshot key", key, kMaxSnapshotKeyBytes));
  std::string layer;
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(layer, RemoveIn(writer, caller, {caller.namespace_name, snapshotter, key}));
    return absl::OkStatus();
  }));
  absl::Status hit = FAILPOINT("metadata.snapshots.after_remove");
  sweeper_.Remove(snapshotter, {layer});
  on_garbage_();
  return hit;
}

}  // namespace gantry::metadata
