// Snapshots as clients see them: named within a namespace, leased, collected; kept in a snapshotter
// under keys of our own.
//
// No lock and no transaction is open while a snapshotter works. Create makes the layer first and
// records it then, in one durable write; Commit records its intent first, since only the record
// says what an interrupted commit was (BackendSweeper settles those). The target protocol (label
// containerd.io/snapshot.ref, contracts 3.7) lets a snapshotter provide a layer itself.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/metadata/backend_sweeper.h"
#include "services/metadata/caller.h"
#include "services/metadata/database.h"
#include "services/metadata/key_gate.h"
#include "services/metadata/labels.h"
#include "services/metadata/snapshot_records.h"
#include "services/metadata/snapshotter_backend.h"

namespace gantry::metadata {

// Thread-safe.
class Snapshots {
 public:
  using Info = SnapshotterBackend::Info;
  using Kind = SnapshotterBackend::Kind;
  using Mounts = SnapshotterBackend::Mounts;

  Snapshots(Database& database, const Backends& backends, BackendSweeper& sweeper,
            std::function<void()> on_garbage)
      : database_(database),
        backends_(backends),
        sweeper_(sweeper),
        on_garbage_(std::move(on_garbage)) {}

  struct CreateRequest {
    std::string snapshotter;
    std::string key;
    std::string parent;  // Empty: none.
    Labels labels;
    Kind kind = Kind::ACTIVE;
  };
  // Errors: AlreadyExists — the key is taken, or the target is there (and is leased then); NotFound
  // — no such parent; InvalidArgument — unknown snapshotter, bad names.
  absl::StatusOr<Mounts> Create(const Caller& caller, const CreateRequest& request);
  absl::StatusOr<Mounts> GetMounts(const Caller& caller, const std::string& snapshotter,
                                   const std::string& key);

  struct CommitRequest {
    std::string snapshotter;
    std::string name;
    std::string key;
    std::string parent;  // For snapshotters that can rebase; empty: as it was made.
    Labels labels;
    absl::Time deadline = absl::InfiniteFuture();
  };
  absl::Status Commit(const Caller& caller, const CommitRequest& request);

  // Errors: FailedPrecondition — it has children.
  absl::Status Remove(const Caller& caller, const std::string& snapshotter, const std::string& key);

  absl::StatusOr<Info> Stat(const Caller& caller, const std::string& snapshotter,
                            const std::string& key);
  // Mask paths: labels, labels.KEY; none: all labels.
  absl::StatusOr<Info> Update(const Caller& caller, const std::string& snapshotter,
                              const Info& wanted, const std::vector<std::string>& mask);
  absl::StatusOr<std::vector<Info>> List(const Caller& caller, const std::string& snapshotter,
                                         const std::vector<std::string>& filters);
  absl::StatusOr<SnapshotterBackend::Usage> GetUsage(const Caller& caller,
                                                     const std::string& snapshotter,
                                                     const std::string& key);
  absl::Status Cleanup(const std::string& snapshotter);

  // Steps of larger mutations (Bundles): a layer that was made and is to be recorded.
  struct Prepared {
    SnapshotPlace place;
    v1::StoredSnapshot stored;
    Mounts mounts;
    BackendSweeper::Protection protection;
    bool made = false;  // By us: to be removed when recording fails.
    std::string backend_parent;
    bool target = false;  // The snapshotter provided `place` itself.
  };
  absl::StatusOr<Prepared> Prepare(const Caller& caller, const CreateRequest& request);
  absl::Status RecordIn(Writer& writer, const Caller& caller, Prepared& prepared) const;
  void Undo(Prepared& prepared);

  // Deletes the record; answers the layer to hand to the sweeper after the transaction.
  // Errors: NotFound; FailedPrecondition — children, or it is being committed.
  absl::StatusOr<std::string> RemoveIn(Writer& writer, const Caller& caller,
                                       const SnapshotPlace& place) const;

 private:
  absl::StatusOr<SnapshotterBackend*> Backend(const std::string& snapshotter) const;
  absl::StatusOr<v1::StoredSnapshot> Recorded(const SnapshotPlace& place) const;
  absl::StatusOr<std::string> CheckFree(const Caller& caller, const CreateRequest& request,
                                        const SnapshotPlace& place);
  absl::Status AdoptTarget(SnapshotterBackend& backend, const std::string& target,
                           Prepared& prepared);
  absl::StatusOr<OpenCommit> BeginCommit(const Caller& caller, const CommitRequest& request,
                                         const std::string& backend_name,
                                         std::string* backend_parent);

  Database& database_;
  const Backends& backends_;
  BackendSweeper& sweeper_;
  std::function<void()> on_garbage_;
  KeyGate gate_;
};

}  // namespace gantry::metadata
