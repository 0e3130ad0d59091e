// Snapshot records and the index of children; steps inside transactions.
//
// Tables: `snapshots` (namespace, snapshotter, key), `snapshot_children` (namespace, snapshotter,
// parent, child), `commits` (namespace, snapshotter, key of the active snapshot).
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gantry/metadata/v1/storage.pb.h"
#include "services/metadata/caller.h"
#include "services/metadata/database.h"
#include "services/metadata/labels.h"

namespace gantry::metadata {

// Where a snapshot is recorded.
struct SnapshotPlace {
  std::string namespace_name;
  std::string snapshotter;
  std::string key;

  std::string RecordKey() const { return JoinKey({namespace_name, snapshotter, key}); }
};

inline constexpr size_t kMaxSnapshotKeyBytes = 512;

absl::Status NoSuchSnapshot(const SnapshotPlace& place);

// Those of a snapshot's labels that are the snapshotter's business (contracts, labels.tsv).
Labels InheritedLabels(const Labels& labels);

absl::StatusOr<SnapshotPlace> ParseSnapshotKey(absl::string_view record_key);
std::string ReadableKey(absl::string_view record_key);

absl::StatusOr<std::optional<v1::StoredSnapshot>> FindSnapshot(const Reader& reader,
                                                               const SnapshotPlace& place);
absl::StatusOr<bool> HasChildren(const Reader& reader, const SnapshotPlace& place);

absl::Status PutSnapshot(Writer& writer, const SnapshotPlace& place,
                         const v1::StoredSnapshot& stored);
// Removes record and index entry; looks at nothing else.
absl::Status EraseSnapshot(Writer& writer, const SnapshotPlace& place,
                           const v1::StoredSnapshot& stored);

// backend key → record key, of one snapshotter in all namespaces.
absl::StatusOr<std::map<std::string, std::string>> RecordedLayers(const Reader& reader,
                                                                  const std::string& snapshotter);

struct OpenCommit {
  SnapshotPlace place;  // Of the active snapshot.
  v1::StoredCommit stored;
};
absl::StatusOr<std::vector<OpenCommit>> OpenCommits(const Reader& reader,
                                                    const std::string& snapshotter);
// Both names of every layer that is being committed.
absl::StatusOr<std::set<std::string>> CommittingLayers(const Reader& reader,
                                                       const std::string& snapshotter);

// The snapshotter has committed it: records that. Errors: AlreadyExists — the name was taken.
absl::Status FinishCommit(Writer& writer, const OpenCommit& commit);
// It has not: the active snapshot stays what it was.
absl::Status AbandonCommit(Writer& writer, const OpenCommit& commit);

// Drops a record without its layer, unless it has children. Whether it is gone.
absl::StatusOr<bool> DropRecord(Writer& writer, absl::string_view record_key);

}  // namespace gantry::metadata
