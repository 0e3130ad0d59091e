// The labels of a snapshot that the snapshotter itself reads (contracts, labels.tsv).
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "snapshotter/snapshotter.h"

namespace gantry::snapshotter {

// "0:HOST:LENGTH[,…]": ids of the container on the host, by whoever mounts.
inline constexpr char kUidMapping[] = "containerd.io/snapshot/uidmapping";
inline constexpr char kGidMapping[] = "containerd.io/snapshot/gidmapping";
// Answered only, never stored.
inline constexpr char kUpperdirLabel[] = "containerd.io/snapshot/overlay.upperdir";

// The host id that root of the container has in "0:HOST:LENGTH[,…]". Errors: InvalidArgument.
absl::StatusOr<uint32_t> HostIdOfRoot(const std::string& label, absl::string_view mapping);

// Every label, their sum, and the mappings above. Errors: InvalidArgument.
absl::Status CheckLabels(const Labels& labels);

}  // namespace gantry::snapshotter
