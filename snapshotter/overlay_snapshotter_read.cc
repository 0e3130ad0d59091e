// Mounts, usage and labels: what callers ask about snapshots that stay as they are.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/directory.h"
#include "lib/sys/file.h"
#include "snapshotter/overlay_snapshotter.h"
#include "snapshotter/snapshot_labels.h"

namespace gantry::snapshotter {
namespace {

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

Info OverlaySnapshotter::Present(const Entry& entry) const {
  Info info = entry.record.info;
  if (options_.report_upperdir) info.labels[kUpperdirLabel] = Directory(entry.id) + "/fs";
  return info;
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
