// What a start finds on disk, and what it makes of half-done work.
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/directory.h"
#include "lib/sys/file.h"
#include "snapshotter/overlay_snapshotter.h"

namespace gantry::snapshotter {

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
}  // namespace gantry::snapshotter
