#include "services/metadata/labels.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/filter/filter.h"

namespace gantry::metadata {
namespace {

constexpr size_t kMaxLabelsBytes = 1 << 20;

template <typename Map>
bool ApplyPath(absl::string_view path, absl::string_view field, const Map& from, Map& to) {
  if (path == field) {
    to = from;
    return true;
  }
  if (!absl::ConsumePrefix(&path, field) || !absl::ConsumePrefix(&path, ".")) return false;
  const std::string key(path);
  auto found = from.find(key);
  if (found == from.end()) {
    to.erase(key);
  } else {
    to[key] = found->second;
  }
  return true;
}

}  // namespace

absl::Status CheckLabels(const Labels& labels) {
  size_t total = 0;
  for (const auto& [key, value] : labels) {
    RETURN_IF_ERROR(CheckLabel(key, value));
    total += key.size() + value.size();
  }
  if (total <= kMaxLabelsBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("labels have ", total, " bytes together; at most ",
                                                 kMaxLabelsBytes, " are allowed"));
}

void DropEmptyLabels(Labels& labels) {
  for (auto label = labels.begin(); label != labels.end();) {
    label = label->second.empty() ? labels.erase(label) : std::next(label);
  }
}

std::string LabelOr(const Labels& labels, const std::string& key, absl::string_view fallback) {
  auto found = labels.find(key);
  return found == labels.end() ? std::string(fallback) : found->second;
}

std::optional<std::string> LabelField(const Labels& labels, const std::vector<std::string>& path) {
  auto found = labels.find(filter::JoinPath(path, 1));
  if (found == labels.end()) return std::nullopt;
  return found->second;
}

bool ApplyLabelPath(absl::string_view path, absl::string_view field, const Labels& from,
                    Labels& to) {
  return ApplyPath(path, field, from, to);
}

bool ApplyAnyPath(absl::string_view path, absl::string_view field, const AnyMap& from, AnyMap& to) {
  return ApplyPath(path, field, from, to);
}

}  // namespace gantry::metadata
