#include "snapshotter/snapshot_labels.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"

namespace gantry::snapshotter {
namespace {

constexpr size_t kMaxLabelsBytes = 1 << 20;

}  // namespace

absl::StatusOr<uint32_t> HostIdOfRoot(const std::string& label, absl::string_view mapping) {
  for (absl::string_view range : absl::StrSplit(mapping, ',')) {
    const std::vector<absl::string_view> parts = absl::StrSplit(range, ':');
    uint32_t inside = 0;
    uint32_t outside = 0;
    uint32_t length = 0;
    if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &inside) ||
        !absl::SimpleAtoi(parts[1], &outside) || !absl::SimpleAtoi(parts[2], &length) ||
        length == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("label '", label, "': '", mapping, "' is not inside:outside:length[,…]"));
    }
    if (inside == 0) return outside;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("label '", label, "': '", mapping, "' does not map id 0"));
}

absl::Status CheckLabels(const Labels& labels) {
  size_t bytes = 0;
  for (const auto& [key, value] : labels) {
    RETURN_IF_ERROR(CheckLabel(key, value));
    bytes += key.size() + value.size();
    if (key == kUidMapping || key == kGidMapping) {
      RETURN_IF_ERROR(HostIdOfRoot(key, value).status());
    }
  }
  if (bytes > kMaxLabelsBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("labels take ", bytes, " bytes; at most ", kMaxLabelsBytes, " are allowed"));
  }
  return absl::OkStatus();
}
}  // namespace gantry::snapshotter
