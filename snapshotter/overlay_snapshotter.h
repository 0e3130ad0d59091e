// Snapshots as directories for overlayfs.
//
//   <root>/snapshots/<id>/record   what it is (docs/formats/snapshots.md)
//                         /fs      its files: overlay's upperdir, later a lowerdir
//                         /work    overlay's workdir, only while active
//   <root>/trash/                  removed, being deleted
//   <root>/damaged/                directories whose record cannot be read; nothing touches them
//
// Ids are random and never used again. A directory becomes a snapshot when its record appears, and
// stops being one when it is renamed into the trash; a crash between the two leaves no half
// snapshot. The index is in memory, read from the records at start.
//
// What is synced when: Commit syncs the whole file system (the layer) and then the record, before
// it answers. Prepare and View answer without a sync, RecordSyncer follows within a second; a power
// failure in that second loses the snapshot as a whole, and callers see NotFound. Remove is not
// synced: a snapshot may reappear after a power failure, and whoever forgot it removes it again.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/metrics/registry.h"
#include "snapshotter/record_syncer.h"
#include "snapshotter/snapshot_record.h"
#include "snapshotter/snapshotter.h"
#include "snapshotter/trash.h"

namespace gantry::snapshotter {

struct OverlayOptions {
  std::string root;
  // Answer the label `containerd.io/snapshot/overlay.upperdir` in Stat and List.
  bool report_upperdir = false;
  // Borrowed; may be null.
  metrics::Registry* metrics = nullptr;
  // The store met an fsync error and refuses changes from now on: the process should end.
  std::function<void(const absl::Status&)> on_failure;
};

// Thread-safe. One per root directory.
class OverlaySnapshotter : public Snapshotter {
 public:
  // The kernel's limit of layers in one overlay.
  static constexpr size_t kMaxDepth = 500;

  // Reads the index and finishes what a crash interrupted. Errors: InvalidArgument — the path of
  // the root cannot stand in mount options.
  static absl::StatusOr<std::unique_ptr<OverlaySnapshotter>> Open(OverlayOptions options);

  absl::StatusOr<Mounts> Prepare(const std::string& key, const std::string& parent,
                                 const Labels& labels) override;
  absl::StatusOr<Mounts> View(const std::string& key, const std::string& parent,
                              const Labels& labels) override;
  absl::StatusOr<Mounts> GetMounts(const std::string& key) override;
  absl::Status Commit(const std::string& key, const std::string& name, const Labels& labels,
                      const std::string& parent) override;
  absl::Status Remove(const std::string& key) override;
  absl::StatusOr<Info> Stat(const std::string& key) override;
  absl::StatusOr<Info> Update(const std::string& key, const LabelChange& change) override;
  std::vector<Info> List() override;
  absl::StatusOr<Usage> GetUsage(const std::string& key) override;
  absl::Status Cleanup(absl::Duration timeout) override;

  // For the audit: directory names by what they are.
  struct Inventory {
    std::map<std::string, std::string> keys_by_id;
    std::vector<std::string> without_parent;  // Keys whose parent is gone.
    size_t trash = 0;
  };
  Inventory TakeInventory();
  const std::string& root() const { return options_.root; }

 private:
  struct Entry {
    SnapshotRecord record;
    std::string id;
    int children = 0;
    // What a call does with it off the lock ("being committed"); null: nothing. An entry whose
    // `visible` is false reserves its name only.
    const char* busy = nullptr;
    bool visible = true;
  };
  using Entries = std::map<std::string, Entry>;

  explicit OverlaySnapshotter(OverlayOptions options);
  absl::Status Load();
  absl::Status LoadOne(const std::string& id);

  absl::StatusOr<Mounts> Create(Kind kind, const std::string& key, const std::string& parent,
                                const Labels& labels);
  absl::Status MakeOnDisk(const std::string& id, const SnapshotRecord& record);
  absl::Status WriteNewRecord(const std::string& id, const SnapshotRecord& record);
  absl::Status Replace(const std::string& id, const SnapshotRecord& record);

  absl::StatusOr<Entry*> Find(const std::string& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Entry*> FindIdle(const std::string& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckParent(const std::string& parent) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Newest first. Errors: DataLoss — the chain has a hole.
  absl::StatusOr<std::vector<std::string>> LowerDirectories(const Entry& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Mounts> MountsOf(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Info Present(const Entry& entry) const;
  void AddChild(const std::string& parent, int count) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Count(Kind kind, int change);
  void Fail(const absl::Status& error);

  std::string Directory(const std::string& id) const;
  std::string RecordPath(const std::string& id) const;

  const OverlayOptions options_;
  absl::Mutex mutex_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);
  absl::Status failed_ ABSL_GUARDED_BY(mutex_);
  // The threads come last: they end before what they use.
  std::unique_ptr<Trash> trash_;
  std::unique_ptr<RecordSyncer> syncer_;
};

}  // namespace gantry::snapshotter
