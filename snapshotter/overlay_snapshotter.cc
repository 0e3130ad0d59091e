#include "snapshotter/overlay_snapshotter.h"

#include <fcntl.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/directory.h"
#include "lib/sys/file.h"

namespace gantry::snapshotter {
namespace {

constexpr char kUidMapping[] = "containerd.io/snapshot/uidmapping";
constexpr char kGidMapping[] = "containerd.io/snapshot/gidmapping";
constexpr char kUpperdirLabel[] = "containerd.io/snapshot/overlay.upperdir";
constexpr size_t kMaxLabelsBytes = 1 << 20;

// The host id that root of the container has in "0:HOST:LENGTH[,…]". Errors: InvalidArgument.
absl::StatusOr<uint32_t> HostIdOfRoot(const std::string& label, absl::string_view mapping) {
  for (absl::string_view range : absl::StrSplit(mapping, ',')) {
    const std::vector<absl::string_view> parts = absl::StrSplit(range, ':');
    uint32_t inside = 0;
    uint32_t outside = 0;
    uint32_t length = 0;
    if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &inside) ||
        !absl::SimpleAtoi(parts[1], &outside) || !absl::SimpleAtoi(parts[2], &length) ||
        length == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("label '", label, "': '", mapping, "' is not inside:outside:length[,…]"));
    }
    if (inside == 0) return outside;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("label '", label, "': '", mapping, "' does not map id 0"));
}

absl::Status CheckLabels(const Labels& labels) {
  size_t bytes = 0;
  for (const auto& [key, value] : labels) {
    RETURN_IF_ERROR(CheckLabel(key, value));
    bytes += key.size() + value.size();
    if (key == kUidMapping || key == kGidMapping) {
      RETURN_IF_ERROR(HostIdOfRoot(key, value).status());
    }
  }
  if (bytes > kMaxLabelsBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("labels take ", bytes, " bytes; at most ", kMaxLabelsBytes, " are allowed"));
  }
  return absl::OkStatus();
}

absl::Status NoSuchSnapshot(const std::string& key) {
  return absl::NotFoundError(absl::StrCat("snapshot '", key, "' does not exist"));
}

sys::MountSpec BindMount(const std::string& source, const char* access) {
  return {.type = "bind", .source = source, .target = "", .options = {access, "rbind"}};
}

}  // namespace

const char* KindName(Kind kind) {
  switch (kind) {
    case Kind::kView:
      return "view";
    case Kind::kActive:
      return "active";
    case Kind::kCommitted:
      return "committed";
  }
  return "unknown";
}

// ---- Start ----

OverlaySnapshotter::OverlaySnapshotter(OverlayOptions options) : options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<OverlaySnapshotter>> OverlaySnapshotter::Open(
    OverlayOptions options) {
  // overlay separates layers by ':' and options by ','; its escapes do not survive all mounters.
  if (options.root.find_first_of(":,\\\" \t\n") != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("open snapshots in '", options.root,
                                                   "': the path has a character that overlay mount "
                                                   "options cannot hold; use another state_dir"));
  }
  std::unique_ptr<OverlaySnapshotter> snapshotter(new OverlaySnapshotter(std::move(options)));
  RETURN_IF_ERROR(
      Annotate(snapshotter->Load(), absl::StrCat("open snapshots in '", snapshotter->root(), "'")));
  return snapshotter;
}

absl::Status OverlaySnapshotter::Load() {
  const std::string snapshots = absl::StrCat(options_.root, "/snapshots");
  const std::string trash = absl::StrCat(options_.root, "/trash");
  for (const std::string& directory : {snapshots, trash, absl::StrCat(options_.root, "/damaged")}) {
    RETURN_IF_ERROR(sys::MakeDirectories(directory, 0700));
  }
  ASSIGN_OR_RETURN(const bool spread, sys::SpreadSubdirectories(snapshots));
  if (!spread) log::Debug("file system does not know chattr +T", {{"path", snapshots}});

  std::function<void(size_t)> on_trash;
  if (options_.metrics != nullptr) {
    metrics::Gauge& waiting = options_.metrics->GetGauge(
        "gantry_snapshotter_trash_directories", "Removed snapshots not deleted from the disk yet.");
    on_trash = [&waiting](size_t count) { waiting.Set(static_cast<double>(count)); };
  }
  trash_ = std::make_unique<Trash>(trash, std::move(on_trash));
  syncer_ =
      std::make_unique<RecordSyncer>(snapshots, [this](const absl::Status& error) { Fail(error); });
  RETURN_IF_ERROR(trash_->Resume());

  ASSIGN_OR_RETURN(std::vector<std::string> ids, sys::ListDirectory(snapshots));
  for (const std::string& id : ids) RETURN_IF_ERROR(LoadOne(id));

  absl::MutexLock lock(&mutex_);
  for (const Kind kind : {Kind::kView, Kind::kActive, Kind::kCommitted}) Count(kind, 0);
  for (auto& [key, entry] : entries_) {
    Count(entry.record.info.kind, 1);
    const std::string& parent = entry.record.info.parent;
    if (parent.empty()) continue;
    auto found = entries_.find(parent);
    if (found == entries_.end() || found->second.id != entry.record.parent_id) {
      log::Error("parent of snapshot is missing; remove the snapshot and make it anew",
                 {{"snapshot", key}, {"parent", parent}});
      continue;
    }
    ++found->second.children;
  }
  return absl::OkStatus();
}

absl::Status OverlaySnapshotter::LoadOne(const std::string& id) {
  const std::string directory = Directory(id);
  absl::StatusOr<std::string> bytes = sys::ReadFile(RecordPath(id), 4 << 20);
  const bool missing = absl::IsNotFound(bytes.status()) || (bytes.ok() && bytes->empty());
  if (missing) {
    // Prepare did not get to its answer, or a power failure took the record away. The first left
    // nothing of value; files written by somebody are kept for a person to look at.
    absl::StatusOr<std::vector<std::string>> files = sys::ListDirectory(directory + "/fs");
    if (!files.ok() || files->empty()) return trash_->Put(directory);
    bytes = absl::DataLossError("the record is empty");
  }
  absl::StatusOr<SnapshotRecord> record =
      bytes.ok() ? DecodeRecord(*bytes) : absl::StatusOr<SnapshotRecord>(bytes.status());
  // A newer version's records are not damage, and an unreadable disk is not an empty one.
  if (!record.ok() && !absl::IsDataLoss(record.status())) {
    return Annotate(record.status(), absl::StrCat("snapshot directory '", directory, "'"));
  }
  if (record.ok()) {
    absl::MutexLock lock(&mutex_);
    const std::string name = record->info.name;
    const Kind kind = record->info.kind;
    auto [place, inserted] = entries_.try_emplace(name);
    if (inserted) {
      place->second.record = std::move(*record);
      place->second.id = id;
    } else {
      record = absl::DataLossError(absl::StrCat("snapshot '", name, "' has two directories"));
    }
    if (inserted && kind == Kind::kCommitted && sys::Exists(directory + "/work")) {
      // A crash came between the commit and this.
      return trash_->Put(directory + "/work");
    }
  }
  if (record.ok()) return absl::OkStatus();
  log::Error("snapshot record cannot be read; the directory is set aside",
             {{"path", directory}, {"error", record.status()}});
  return sys::Rename(directory, absl::StrCat(options_.root, "/damaged/", id));
}

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

// ---- Mounts ----

absl::StatusOr<Mounts> OverlaySnapshotter::GetMounts(const std::string& key) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(Entry * entry, Find(key));
  if (entry->record.info.kind == Kind::kCommitted) {
    return absl::FailedPreconditionError(
        absl::StrCat("mounts of snapshot '", key,
                     "': it is committed; make a view or an active snapshot of it"));
  }
  return MountsOf(*entry);
}

absl::StatusOr<std::vector<std::string>> OverlaySnapshotter::LowerDirectories(const Entry& entry) {
  std::vector<std::string> lower;
  for (const Entry* at = &entry; !at->record.info.parent.empty();) {
    auto found = entries_.find(at->record.info.parent);
    if (found == entries_.end() || found->second.id != at->record.parent_id) {
      return absl::DataLossError(absl::StrCat("parent '", at->record.info.parent, "' of snapshot '",
                                              at->record.info.name,
                                              "' is lost; remove the snapshot and make it anew"));
    }
    at = &found->second;
    lower.push_back(Directory(at->id) + "/fs");
  }
  return lower;
}

absl::StatusOr<Mounts> OverlaySnapshotter::MountsOf(const Entry& entry) {
  ASSIGN_OR_RETURN(const std::vector<std::string> lower, LowerDirectories(entry));
  const Info& info = entry.record.info;
  const bool writable = info.kind == Kind::kActive;
  const std::string directory = Directory(entry.id);
  if (lower.empty()) return Mounts{BindMount(directory + "/fs", writable ? "rw" : "ro")};
  if (!writable && lower.size() == 1) return Mounts{BindMount(lower[0], "ro")};

  sys::MountSpec overlay = {.type = "overlay", .source = "overlay", .target = "", .options = {}};
  overlay.options.push_back("index=off");
  if (const auto uids = info.labels.find(kUidMapping); uids != info.labels.end()) {
    overlay.options.push_back(absl::StrCat("uidmap=", uids->second));
  }
  if (const auto gids = info.labels.find(kGidMapping); gids != info.labels.end()) {
    overlay.options.push_back(absl::StrCat("gidmap=", gids->second));
  }
  if (writable) {
    overlay.options.push_back(absl::StrCat("workdir=", directory, "/work"));
    overlay.options.push_back(absl::StrCat("upperdir=", directory, "/fs"));
  }
  overlay.options.push_back(absl::StrCat("lowerdir=", absl::StrJoin(lower, ":")));
  return Mounts{std::move(overlay)};
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

// ---- Reading and labels ----

absl::StatusOr<Info> OverlaySnapshotter::Stat(const std::string& key) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(Entry * entry, Find(key));
  return Present(*entry);
}

std::vector<Info> OverlaySnapshotter::List() {
  absl::MutexLock lock(&mutex_);
  std::vector<Info> infos;
  infos.reserve(entries_.size());
  for (const auto& [key, entry] : entries_) {
    if (entry.visible) infos.push_back(Present(entry));
  }
  return infos;
}

absl::StatusOr<Usage> OverlaySnapshotter::GetUsage(const std::string& key) {
  std::string directory;
  {
    absl::MutexLock lock(&mutex_);
    ASSIGN_OR_RETURN(Entry * entry, Find(key));
    if (entry->record.info.kind == Kind::kCommitted) return entry->record.usage;
    if (entry->record.info.kind == Kind::kView) return Usage{};
    directory = Directory(entry->id);
  }
  // Without the lock: a large layer takes seconds. Its removal meanwhile reads as NotFound.
  absl::StatusOr<sys::DiskUsage> usage = sys::MeasureTree(directory + "/fs");
  RETURN_IF_ERROR(Annotate(usage.status(), absl::StrCat("usage of snapshot '", key, "'")));
  return Usage{.bytes = usage->bytes, .inodes = usage->inodes};
}

absl::StatusOr<Info> OverlaySnapshotter::Update(const std::string& key, const LabelChange& change) {
  const std::string context = absl::StrCat("update snapshot '", key, "'");
  SnapshotRecord record;
  std::string id;
  {
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(failed_);
    absl::StatusOr<Entry*> entry = FindIdle(key);
    RETURN_IF_ERROR(Annotate(entry.status(), context));
    record = (*entry)->record;
    id = (*entry)->id;
    Labels& labels = record.info.labels;
    if (change.replace_all) labels = change.labels;
    for (const std::string& path : change.paths) {
      const auto value = change.labels.find(path);
      if (value == change.labels.end()) {
        labels.erase(path);
      } else {
        labels[path] = value->second;
      }
    }
    RETURN_IF_ERROR(Annotate(CheckLabels(labels), context));
    (*entry)->busy = "being updated";
  }
  record.info.updated_at = absl::Now();
  absl::Status done = FAILPOINT("snapshotter.update.before_record");
  if (done.ok()) done = Replace(id, record);
  absl::MutexLock lock(&mutex_);
  Entry& entry = entries_[key];
  entry.busy = nullptr;
  RETURN_IF_ERROR(Annotate(done, context));
  entry.record = std::move(record);
  return Present(entry);
}

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

Info OverlaySnapshotter::Present(const Entry& entry) const {
  Info info = entry.record.info;
  if (options_.report_upperdir) info.labels[kUpperdirLabel] = Directory(entry.id) + "/fs";
  return info;
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

OverlaySnapshotter::Inventory OverlaySnapshotter::TakeInventory() {
  absl::MutexLock lock(&mutex_);
  Inventory inventory;
  for (const auto& [key, entry] : entries_) {
    inventory.keys_by_id[entry.id] = key;
    const std::string& parent = entry.record.info.parent;
    if (parent.empty()) continue;
    const auto found = entries_.find(parent);
    if (found == entries_.end() || found->second.id != entry.record.parent_id) {
      inventory.without_parent.push_back(key);
    }
  }
  inventory.trash = trash_->size();
  return inventory;
}

}  // namespace gantry::snapshotter
