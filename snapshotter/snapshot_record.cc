#include "snapshotter/snapshot_record.h"

#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/base/crc32c.h"
#include "lib/base/status.h"
#include "lib/json/json.h"

namespace gantry::snapshotter {
namespace {

constexpr absl::string_view kMagic = "gantry-snapshot 1 ";
constexpr size_t kChecksumDigits = 8;

absl::StatusOr<Kind> ParseKind(absl::string_view text) {
  for (const Kind kind : {Kind::kView, Kind::kActive, Kind::kCommitted}) {
    if (text == KindName(kind)) return kind;
  }
  return absl::DataLossError(absl::StrCat("kind '", text, "' is not known"));
}

absl::StatusOr<SnapshotRecord> DecodeBody(absl::string_view body) {
  ASSIGN_OR_RETURN(json::Document document, json::Document::Parse(body));
  const json::Value root = document.root();
  SnapshotRecord record;
  std::string kind;
  int64_t created = 0;
  int64_t updated = 0;
  RETURN_IF_ERROR(root.Required("name", &record.info.name));
  RETURN_IF_ERROR(root.Required("kind", &kind));
  RETURN_IF_ERROR(root.Optional("parent", &record.info.parent));
  RETURN_IF_ERROR(root.Optional("parent_id", &record.parent_id));
  RETURN_IF_ERROR(root.Optional("labels", &record.info.labels));
  RETURN_IF_ERROR(root.Required("created_nanos", &created));
  RETURN_IF_ERROR(root.Required("updated_nanos", &updated));
  RETURN_IF_ERROR(root.Optional("usage_bytes", &record.usage.bytes));
  RETURN_IF_ERROR(root.Optional("usage_inodes", &record.usage.inodes));
  ASSIGN_OR_RETURN(record.info.kind, ParseKind(kind));
  record.info.created_at = absl::FromUnixNanos(created);
  record.info.updated_at = absl::FromUnixNanos(updated);
  return record;
}

}  // namespace

std::string EncodeRecord(const SnapshotRecord& record) {
  json::Writer writer;
  writer.BeginObject();
  writer.Member("name", record.info.name);
  writer.Member("kind", KindName(record.info.kind));
  if (!record.info.parent.empty()) writer.Member("parent", record.info.parent);
  if (!record.parent_id.empty()) writer.Member("parent_id", record.parent_id);
  if (!record.info.labels.empty()) writer.Member("labels", record.info.labels);
  writer.Member("created_nanos", absl::ToUnixNanos(record.info.created_at));
  writer.Member("updated_nanos", absl::ToUnixNanos(record.info.updated_at));
  if (record.usage.inodes != 0) {
    writer.Member("usage_bytes", record.usage.bytes);
    writer.Member("usage_inodes", record.usage.inodes);
  }
  writer.EndObject();
  const std::string body = writer.Take();
  return absl::StrCat(kMagic, absl::Hex(Crc32c(body), absl::kZeroPad8), "\n", body, "\n");
}

absl::StatusOr<SnapshotRecord> DecodeRecord(absl::string_view bytes) {
  const absl::string_view name = kMagic.substr(0, kMagic.find(' ') + 1);
  if (bytes.substr(0, name.size()) == name && bytes.size() > kMagic.size() &&
      bytes.substr(0, kMagic.size()) != kMagic) {
    return absl::InvalidArgumentError(
        "read snapshot record: written by another version of Gantry; use that version");
  }
  const size_t header = kMagic.size() + kChecksumDigits + 1;
  if (bytes.size() <= header || bytes.substr(0, kMagic.size()) != kMagic ||
      bytes[header - 1] != '\n' || bytes.back() != '\n') {
    return absl::DataLossError("read snapshot record: it is torn, or no record");
  }
  uint32_t checksum = 0;
  if (!absl::SimpleHexAtoi(bytes.substr(kMagic.size(), kChecksumDigits), &checksum)) {
    return absl::DataLossError("read snapshot record: it is torn, or no record");
  }
  absl::string_view body = bytes.substr(header);
  body.remove_suffix(1);
  if (Crc32c(body) != checksum) {
    return absl::DataLossError("read snapshot record: the checksum does not match");
  }
  absl::StatusOr<SnapshotRecord> record = DecodeBody(body);
  if (!record.ok()) {
    return absl::DataLossError(absl::StrCat("read snapshot record: ", record.status().message()));
  }
  return record;
}

}  // namespace gantry::snapshotter
