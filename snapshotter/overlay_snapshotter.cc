#include "snapshotter/overlay_snapshotter.h"

#include <fcntl.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/directory.h"
#include "lib/sys/file.h"
#include "snapshotter/snapshot_labels.h"

namespace gantry::snapshotter {
namespace {

absl::Status NoSuchSnapshot(const std::string& key) {
  return absl::NotFoundError(absl::StrCat("snapshot '", key, "' does not exist"));
}

}  // namespace

OverlaySnapshotter::OverlaySnapshotter(OverlayOptions options) : options_(std::move(options)) {}

// ---- Making ----

absl::StatusOr<Mounts> OverlaySnapshotter::Prepare(const std::string& key,
                                                   const std::string& parent,
                                                   const Labels& labels) {
  return Annotate(Create(Kind::kActive, key, parent, labels),
                  absl::StrCat("prepare snapshot '", key, "'"));
}

absl::StatusOr<Mounts> OverlaySnapshotter::View(const std::string& key, const std::string& parent,
                                                const Labels& labels) {
  return Annotate(Create(Kind::kView, key, parent, labels),
                  absl::StrCat("view snapshot '", key, "'"));
}

absl::StatusOr<Mounts> OverlaySnapshotter::Create(Kind kind, const std::string& key,
                                                  const std::string& parent, const Labels& labels) {
  RETURN_IF_ERROR(CheckLabels(labels));
  SnapshotRecord record;
  record.info = {.name = key,
                 .parent = parent,
                 .kind = kind,
                 .labels = labels,
                 .created_at = absl::Now(),
                 .updated_at = absl::Now()};
  record.info.updated_at = record.info.created_at;
  const std::string id = RandomHex(6);
  {
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(failed_);
    if (entries_.contains(key)) {
      return absl::AlreadyExistsError("the key is taken by another snapshot");
    }
    RETURN_IF_ERROR(CheckParent(parent));
    if (!parent.empty()) record.parent_id = entries_[parent].id;
    // Holding the name and the parent makes the work below safe without the lock.
    Entry& entry = entries_[key];
    entry = {.record = record, .id = id, .children = 0, .busy = "being made", .visible = false};
    AddChild(parent, 1);
  }
  const absl::Status made = MakeOnDisk(id, record);
  if (!made.ok() && sys::Exists(Directory(id))) {
    if (absl::Status undone = trash_->Put(Directory(id)); !undone.ok()) {
      log::Warning("directory of a failed snapshot stays until the next start",
                   {{"path", Directory(id)}, {"error", undone}});
    }
  }
  absl::MutexLock lock(&mutex_);
  if (!made.ok()) {
    AddChild(parent, -1);
    entries_.erase(key);
    return made;
  }
  Entry& entry = entries_[key];
  entry.busy = nullptr;
  entry.visible = true;
  Count(kind, 1);
  syncer_->Add(RecordPath(id));
  return MountsOf(entry);
}

absl::Status OverlaySnapshotter::MakeOnDisk(const std::string& id, const SnapshotRecord& record) {
  const std::string directory = Directory(id);
  RETURN_IF_ERROR(FAILPOINT("snapshotter.prepare.before_mkdir"));
  RETURN_IF_ERROR(sys::MakeDirectory(directory, 0700));
  const std::string upper = directory + "/fs";
  // A view of something has no files of its own.
  if (record.info.kind == Kind::kView && !record.parent_id.empty())
    return WriteNewRecord(id, record);
  RETURN_IF_ERROR(sys::MakeDirectory(upper, 0755));
  if (!record.parent_id.empty()) {
    // The root of the merged tree shows the owner and mode of the top layer.
    RETURN_IF_ERROR(sys::CopyOwnerAndMode(Directory(record.parent_id) + "/fs", upper));
  }
  const Labels& labels = record.info.labels;
  const auto uids = labels.find(kUidMapping);
  const auto gids = labels.find(kGidMapping);
  if (uids != labels.end() && gids != labels.end()) {
    ASSIGN_OR_RETURN(const uint32_t uid, HostIdOfRoot(kUidMapping, uids->second));
    ASSIGN_OR_RETURN(const uint32_t gid, HostIdOfRoot(kGidMapping, gids->second));
    RETURN_IF_ERROR(sys::ChangeDirectoryOwner(upper, uid, gid));
  }
  if (record.info.kind == Kind::kActive) {
    RETURN_IF_ERROR(sys::MakeDirectory(directory + "/work", 0711));
  }
  return WriteNewRecord(id, record);
}

absl::Status OverlaySnapshotter::WriteNewRecord(const std::string& id,
                                                const SnapshotRecord& record) {
  RETURN_IF_ERROR(FAILPOINT("snapshotter.prepare.before_record"));
  ASSIGN_OR_RETURN(sys::UniqueFd file,
                   sys::Open(RecordPath(id), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  RETURN_IF_ERROR(Annotate(sys::WriteAll(file, EncodeRecord(record)), RecordPath(id)));
  return FAILPOINT("snapshotter.prepare.after_record");
}

absl::Status OverlaySnapshotter::CheckParent(const std::string& parent) {
  if (parent.empty()) return absl::OkStatus();
  auto found = entries_.find(parent);
  if (found == entries_.end() || !found->second.visible) {
    return absl::NotFoundError(absl::StrCat("parent snapshot '", parent, "' does not exist"));
  }
  if (found->second.record.info.kind != Kind::kCommitted) {
    return absl::InvalidArgumentError(absl::StrCat("parent snapshot '", parent, "' is ",
                                                   KindName(found->second.record.info.kind),
                                                   "; only a committed snapshot can be a parent"));
  }
  if (found->second.busy != nullptr) {
    return absl::UnavailableError(
        absl::StrCat("parent snapshot '", parent, "' is ", found->second.busy));
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> lower, LowerDirectories(found->second));
  if (lower.size() + 1 > kMaxDepth) {
    return absl::FailedPreconditionError(
        absl::StrCat("parent snapshot '", parent, "' has ", lower.size(),
                     " layers below it; overlayfs takes ", kMaxDepth, " in all"));
  }
  return absl::OkStatus();
}

// ---- Commit and remove ----

absl::Status OverlaySnapshotter::Commit(const std::string& key, const std::string& name,
                                        const Labels& labels, const std::string& parent) {
  const std::string context = absl::StrCat("commit snapshot '", key, "' as '", name, "'");
  RETURN_IF_ERROR(Annotate(CheckLabels(labels), context));
  SnapshotRecord record;
  std::string id;
  bool rebased = false;
  {
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(failed_);
    absl::StatusOr<Entry*> entry = FindIdle(key);
    RETURN_IF_ERROR(Annotate(entry.status(), context));
    if (entries_.contains(name)) {
      return absl::AlreadyExistsError(absl::StrCat(context, ": the name is taken"));
    }
    record = (*entry)->record;
    id = (*entry)->id;
    if (record.info.kind != Kind::kActive) {
      return absl::FailedPreconditionError(
          absl::StrCat(context, ": it is ", KindName(record.info.kind),
                       ", only an active snapshot can be committed"));
    }
    if (!parent.empty() && parent != record.info.parent) {
      if (!record.info.parent.empty()) {
        return absl::FailedPreconditionError(absl::StrCat(context, ": it stands on '",
                                                          record.info.parent,
                                                          "' and cannot move to '", parent, "'"));
      }
      RETURN_IF_ERROR(Annotate(CheckParent(parent), context));
      rebased = true;
      record.info.parent = parent;
      record.parent_id = entries_[parent].id;
      AddChild(parent, 1);
    }
    (*entry)->busy = "being committed";
    entries_[name] = {
        .record = {}, .id = "", .children = 0, .busy = "being made", .visible = false};
  }
  record.info.name = name;
  record.info.kind = Kind::kCommitted;
  record.info.created_at = record.info.updated_at = absl::Now();
  if (!labels.empty()) record.info.labels = labels;
  const absl::Status done = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const sys::DiskUsage usage, sys::MeasureTree(Directory(id) + "/fs"));
    record.usage = {.bytes = usage.bytes, .inodes = usage.inodes};
    RETURN_IF_ERROR(FAILPOINT("snapshotter.commit.before_sync"));
    // Whoever unpacked into the layer need not have synced: after our answer the blob it came from
    // may be deleted.
    if (absl::Status synced = sys::SyncFileSystem(Directory(id)); !synced.ok()) {
      Fail(synced);
      return synced;
    }
    RETURN_IF_ERROR(FAILPOINT("snapshotter.commit.before_record"));
    RETURN_IF_ERROR(Replace(id, record));
    return FAILPOINT("snapshotter.commit.after_record");
  }();

  {
    absl::MutexLock lock(&mutex_);
    if (!done.ok()) {
      entries_.erase(name);
      entries_[key].busy = nullptr;
      if (rebased) AddChild(parent, -1);
      return Annotate(done, context);
    }
    Entry& committed = entries_[name];
    committed = std::move(entries_[key]);
    committed.record = std::move(record);
    committed.busy = nullptr;
    entries_.erase(key);
    Count(Kind::kActive, -1);
    Count(Kind::kCommitted, 1);
  }
  if (absl::Status put = trash_->Put(Directory(id) + "/work");
      !put.ok() && !absl::IsNotFound(put)) {
    log::Warning("work directory of a committed snapshot stays until the next start",
                 {{"path", Directory(id)}, {"error", put}});
  }
  return absl::OkStatus();
}

absl::Status OverlaySnapshotter::Replace(const std::string& id, const SnapshotRecord& record) {
  const absl::Status written = sys::WriteFileDurably(RecordPath(id), EncodeRecord(record));
  // A full disk is met before the rename. After anything else nobody knows which record a power
  // failure would leave.
  if (!written.ok() && !absl::IsResourceExhausted(written)) Fail(written);
  return written;
}

absl::Status OverlaySnapshotter::Remove(const std::string& key) {
  const std::string context = absl::StrCat("remove snapshot '", key, "'");
  std::string id;
  {
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(failed_);
    absl::StatusOr<Entry*> entry = FindIdle(key);
    RETURN_IF_ERROR(Annotate(entry.status(), context));
    if ((*entry)->children > 0) {
      return absl::FailedPreconditionError(
          absl::StrCat(context, ": it has ", (*entry)->children, " children; remove them first"));
    }
    (*entry)->busy = "being removed";
    id = (*entry)->id;
  }
  const absl::Status put = trash_->Put(Directory(id));
  absl::MutexLock lock(&mutex_);
  auto found = entries_.find(key);
  // A directory that is gone already (a person removed it) is as good as removed.
  if (!put.ok() && !absl::IsNotFound(put)) {
    found->second.busy = nullptr;
    return Annotate(put, context);
  }
  const std::string parent = found->second.record.info.parent;
  const std::string parent_id = found->second.record.parent_id;
  if (auto above = entries_.find(parent);
      above != entries_.end() && above->second.id == parent_id) {
    AddChild(parent, -1);
  }
  Count(found->second.record.info.kind, -1);
  entries_.erase(found);
  return absl::OkStatus();
}

absl::Status OverlaySnapshotter::Cleanup(absl::Duration timeout) { return trash_->Drain(timeout); }

// ---- Helpers ----

absl::StatusOr<OverlaySnapshotter::Entry*> OverlaySnapshotter::Find(const std::string& key) {
  auto found = entries_.find(key);
  if (found == entries_.end() || !found->second.visible) return NoSuchSnapshot(key);
  return &found->second;
}

absl::StatusOr<OverlaySnapshotter::Entry*> OverlaySnapshotter::FindIdle(const std::string& key) {
  ASSIGN_OR_RETURN(Entry * entry, Find(key));
  if (entry->busy != nullptr) {
    return absl::UnavailableError(
        absl::StrCat("snapshot '", key, "' is ", entry->busy, " by another call; try again"));
  }
  return entry;
}

void OverlaySnapshotter::AddChild(const std::string& parent, int count) {
  if (!parent.empty()) entries_[parent].children += count;
}

void OverlaySnapshotter::Count(Kind kind, int change) {
  if (options_.metrics == nullptr) return;
  options_.metrics
      ->GetGauge("gantry_snapshotter_snapshots", "Snapshots by kind.", {{"kind", KindName(kind)}})
      .Add(change);
}

void OverlaySnapshotter::Fail(const absl::Status& error) {
  {
    absl::MutexLock lock(&mutex_);
    if (!failed_.ok()) return;
    // After a failed fsync the kernel has dropped the dirty pages: trying again would report
    // success.
    failed_ = absl::DataLossError(absl::StrCat("the disk of '", options_.root,
                                               "' failed earlier: ", error.message(),
                                               "; check it and start the snapshotter again"));
  }
  log::Error("disk failed; the snapshotter refuses changes", {{"error", error}});
  if (options_.on_failure) options_.on_failure(error);
}

std::string OverlaySnapshotter::Directory(const std::string& id) const {
  return absl::StrCat(options_.root, "/snapshots/", id);
}

std::string OverlaySnapshotter::RecordPath(const std::string& id) const {
  return absl::StrCat(Directory(id), "/record");
}

}  // namespace gantry::snapshotter
