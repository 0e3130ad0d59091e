// Keeps the snapshotters in step with the records: removes layers that no record names any more,
// and repairs after a crash.
//
// Order of every operation: a layer is made in the snapshotter first, under a key that was never
// used, then recorded; a record is deleted first, then its layer removed. So at any moment a layer
// without a record is garbage, unless it is protected: its record is being written just now.
// Crashes need no intent on disk for that, only this sweeper's look at everything when it starts.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/rpc/audit.h"
#include "services/metadata/database.h"
#include "services/metadata/snapshotter_backend.h"

namespace gantry::metadata {

using Backends = std::map<std::string, std::unique_ptr<SnapshotterBackend>>;

// Thread-safe.
class BackendSweeper {
 public:
  // A backend key that must not be swept now. Move-only.
  class Protection {
   public:
    Protection() = default;
    Protection(BackendSweeper* sweeper, std::string snapshotter, std::string key);
    Protection(Protection&& other) noexcept;
    Protection& operator=(Protection&& other) noexcept;
    ~Protection();

    const std::string& key() const { return entry_.second; }

   private:
    BackendSweeper* sweeper_ = nullptr;
    std::pair<std::string, std::string> entry_;
  };

  // `backends` is borrowed. Repair of every snapshotter is asked for at once and done by Start's
  // thread as soon as the snapshotter answers.
  BackendSweeper(Database& database, const Backends& backends);
  ~BackendSweeper();

  void Start();
  void Stop();

  // A key for a new layer: `namespace/number/name`, never used before, protected.
  absl::StatusOr<Protection> NewKey(const std::string& snapshotter,
                                    absl::string_view namespace_name, absl::string_view name);

  // Removes layers, in this order, soon. Their records are gone, or were never written.
  void Remove(const std::string& snapshotter, std::vector<std::string> keys);

  // Looks for layers without records and records without layers, and settles commits left open.
  void RequestRepair(const std::string& snapshotter);

  // Waits until nothing is left to remove or repair. Errors: DeadlineExceeded — a snapshotter does
  // not answer or refuses; the message names it.
  absl::Status WaitIdle(absl::Time deadline);

  // Compares records with layers now.
  absl::Status Audit(rpc::AuditReport& report);

  // Marks a commit that a request is carrying out, which repair must leave alone.
  void BeginCommit(const std::string& backend_key);
  void EndCommit(const std::string& backend_key);

 private:
  struct Removal {
    std::string snapshotter;
    std::string key;
  };
  // One look at a snapshotter and at the records, in an order that makes the difference safe to act
  // on.
  struct Comparison {
    std::vector<std::string> unknown;  // Layers of ours without a record.
    std::vector<std::string> foreign;  // Layers whose keys metadata never made.
    std::vector<std::string> missing;  // Keys of records without a layer.
    std::set<std::string> present;     // All layers.
    size_t recorded = 0;
  };

  void Loop();
  void RemoveOne(const Removal& removal);
  absl::Status Repair(const std::string& snapshotter);
  absl::StatusOr<Comparison> Compare(const std::string& snapshotter);
  absl::Status SettleCommits(const std::string& snapshotter, const std::set<std::string>& present);
  absl::Status DropBrokenRecords(const std::string& snapshotter, const Comparison& comparison);
  bool IsProtected(const std::string& snapshotter, const std::string& key) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Database& database_;
  const Backends& backends_;

  mutable absl::Mutex mutex_;
  std::multiset<std::pair<std::string, std::string>> protected_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> committing_ ABSL_GUARDED_BY(mutex_);
  std::deque<Removal> removals_ ABSL_GUARDED_BY(mutex_);
  std::deque<Removal> refused_ ABSL_GUARDED_BY(mutex_);  // To be tried again at retry_at_.
  std::set<std::string> repairs_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> failed_repairs_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> cleanups_ ABSL_GUARDED_BY(mutex_);
  absl::Time retry_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Duration backoff_ ABSL_GUARDED_BY(mutex_) = absl::Milliseconds(100);
  absl::Status last_error_ ABSL_GUARDED_BY(mutex_);
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_number_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t number_limit_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread thread_;
};

}  // namespace gantry::metadata
