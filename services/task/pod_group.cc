#include "services/task/pod_group.h"

#include <optional>

#include "absl/strings/match.h"
#include "lib/json/json.h"

namespace gantry::task {
namespace {

constexpr const char* kAnnotations[] = {"io.containerd.runc.v2.group",
                                        "io.kubernetes.cri.sandbox-id"};

}  // namespace

std::string PodGroupOf(absl::string_view config_json) {
  // Most containers are alone: no need to parse a long document to learn that.
  if (!absl::StrContains(config_json, kAnnotations[0]) &&
      !absl::StrContains(config_json, kAnnotations[1])) {
    return "";
  }
  const absl::StatusOr<json::Document> document = json::Document::Parse(config_json);
  if (!document.ok()) return "";
  const std::optional<json::Value> annotations = document->root().Find("annotations");
  if (!annotations.has_value()) return "";
  for (const char* name : kAnnotations) {
    std::string group;
    if (annotations->Optional(name, &group).ok() && !group.empty()) return group;
  }
  return "";
}

}  // namespace gantry::task
