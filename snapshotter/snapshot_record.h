// The file `record` in a snapshot's directory (docs/formats/snapshots.md).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "snapshotter/snapshotter.h"

namespace gantry::snapshotter {

struct SnapshotRecord {
  Info info;
  std::string parent_id;  // Directory of the parent; empty: none.
  Usage usage;            // Measured at commit; zero before.
};

std::string EncodeRecord(const SnapshotRecord& record);

// Errors: DataLoss — torn or rotten; InvalidArgument — another version.
absl::StatusOr<SnapshotRecord> DecodeRecord(absl::string_view bytes);

}  // namespace gantry::snapshotter
