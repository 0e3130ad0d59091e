// A container's outer face: its id, and the state document of the runtime specification.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"
#include "lib/sys/file.h"
#include "runtime/runtime.h"

namespace gantry::runtime {
namespace {

constexpr size_t kMaxIdBytes = 1024;

}  // namespace

absl::string_view StatusName(Status status) {
  switch (status) {
    case Status::kCreating:
      return "creating";
    case Status::kCreated:
      return "created";
    case Status::kRunning:
      return "running";
    case Status::kPaused:
      return "paused";
    case Status::kStopped:
      return "stopped";
  }
  return "unknown";
}

absl::Status CheckContainerId(absl::string_view id) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '+' || c == '-';
  };
  bool valid = !id.empty() && id.size() <= kMaxIdBytes && plain(id[0]);
  for (char c : id) valid = valid && (plain(c) || c == '.');
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "invalid container id format: ", Quote(id.substr(0, 128)),
      "; letters, digits and _ + - . are allowed, '.' not first, at most ", kMaxIdBytes, " bytes"));
}

std::string WriteState(const State& state) {
  json::Writer writer;
  writer.BeginObject();
  writer.Member("ociVersion", state.oci_version);
  writer.Member("id", state.id);
  writer.Member("pid", static_cast<int32_t>(state.pid));
  writer.Member("status", StatusName(state.status));
  writer.Member("bundle", state.bundle);
  writer.Member("rootfs", state.rootfs);
  writer.Member("created", FormatRfc3339Nano(state.created));
  if (!state.annotations.empty()) writer.Member("annotations", state.annotations);
  writer.Member("owner", state.owner);
  writer.EndObject();
  return writer.Take();
}

absl::StatusOr<std::vector<std::string>> ListContainers(const std::string& state_root) {
  absl::StatusOr<std::vector<std::string>> names = sys::ListDirectory(state_root);
  if (absl::IsNotFound(names.status())) return std::vector<std::string>();
  RETURN_IF_ERROR(names.status());
  std::vector<std::string> ids;
  for (std::string& name : *names) {
    if (CheckContainerId(name).ok()) ids.push_back(std::move(name));
  }
  return ids;
}

}  // namespace gantry::runtime
