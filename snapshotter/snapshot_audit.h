// Compares the index with the directories and with what is mounted.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "lib/rpc/audit.h"
#include "snapshotter/overlay_snapshotter.h"

namespace gantry::snapshotter {

// Finds: directories without a record and records without a directory, damaged directories,
// snapshots whose parent is lost, mounts of snapshots that no longer exist. `mountinfo` is the text
// of /proc/self/mountinfo.
absl::Status AuditSnapshots(OverlaySnapshotter& snapshotter, absl::string_view mountinfo,
                            rpc::AuditReport& report);

}  // namespace gantry::snapshotter
