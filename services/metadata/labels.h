// Labels and field masks, as containerd treats them everywhere.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/map.h"

namespace gantry::metadata {

using Labels = google::protobuf::Map<std::string, std::string>;

// Names with a meaning for this process (contracts, labels.tsv).
inline constexpr char kLabelGcRoot[] = "containerd.io/gc.root";
inline constexpr char kLabelGcExpire[] = "containerd.io/gc.expire";
inline constexpr char kLabelGcFlat[] = "containerd.io/gc.flat";
inline constexpr char kLabelGcRef[] = "containerd.io/gc.ref.";
inline constexpr char kLabelGcBackRef[] = "containerd.io/gc.bref.";
inline constexpr char kLabelSnapshotRef[] = "containerd.io/snapshot.ref";
inline constexpr char kLabelSnapshotPrefix[] = "containerd.io/snapshot/";

// Errors: InvalidArgument — a label breaks the rule of CheckLabel, or all together exceed 1 MiB.
absl::Status CheckLabels(const Labels& labels);

// A label with an empty value is no label: setting one removes it.
void DropEmptyLabels(Labels& labels);

std::string LabelOr(const Labels& labels, const std::string& key, absl::string_view fallback = "");

// The value of the filter field `path`, whose words from the second on are the label's key.
std::optional<std::string> LabelField(const Labels& labels, const std::vector<std::string>& path);

// Applies the mask path `labels` or `labels.KEY` (for `field` "labels"). False: the path is
// another.
bool ApplyLabelPath(absl::string_view path, absl::string_view field, const Labels& from,
                    Labels& to);

using AnyMap = google::protobuf::Map<std::string, google::protobuf::Any>;
bool ApplyAnyPath(absl::string_view path, absl::string_view field, const AnyMap& from, AnyMap& to);

}  // namespace gantry::metadata
