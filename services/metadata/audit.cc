#include "services/metadata/audit.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gantry/metadata/v1/metadata.pb.h"
#include "lib/base/status.h"
#include "services/metadata/snapshot_records.h"

namespace gantry::metadata {
namespace {

constexpr char kRestore[] = "restore a backup of gantry-metadata's state directory";

// Lease resources belong to a lease, children to a parent, owners to a blob.
absl::Status CheckLinks(const Reader& reader, rpc::AuditReport& report) {
  auto resources = [&](absl::string_view key, absl::string_view) -> absl::StatusOr<bool> {
    const std::vector<absl::string_view> parts = SplitKey(key);
    ASSIGN_OR_RETURN(auto lease, reader.Find(Table::kLeases, JoinKey({parts.at(0), parts.at(1)})));
    if (!lease)
      report.findings.push_back(
          {"lease", ReadableKey(key), "a resource of a lease that is gone", kRestore});
    return true;
  };
  RETURN_IF_ERROR(reader.Scan(Table::kLeaseResources, "", resources));
  auto children = [&](absl::string_view key, absl::string_view) -> absl::StatusOr<bool> {
    const std::vector<absl::string_view> parts = SplitKey(key);
    for (size_t at : {2, 3}) {
      ASSIGN_OR_RETURN(
          auto snapshot,
          reader.Find(Table::kSnapshots, JoinKey({parts.at(0), parts.at(1), parts.at(at)})));
      if (!snapshot) {
        report.findings.push_back(
            {"snapshot", ReadableKey(key),
             at == 2 ? "its parent is not recorded" : "a child that is not recorded", kRestore});
      }
    }
    return true;
  };
  RETURN_IF_ERROR(reader.Scan(Table::kSnapshotChildren, "", children));
  auto owners = [&](absl::string_view key, absl::string_view) -> absl::StatusOr<bool> {
    const std::vector<absl::string_view> parts = SplitKey(key);
    ASSIGN_OR_RETURN(auto blob, reader.Find(Table::kBlobs, JoinKey({parts.at(1), parts.at(0)})));
    if (!blob)
      report.findings.push_back(
          {"blob", ReadableKey(key), "counted in a namespace that does not record it", kRestore});
    return true;
  };
  return reader.Scan(Table::kBlobOwners, "", owners);
}

}  // namespace

absl::Status AuditDatabase(const Database& database, rpc::AuditReport& report) {
  ASSIGN_OR_RETURN(Reader reader, database.Read());
  bool whole = true;
  for (int i = 0; i < kTableCount; ++i) {
    const Table table = static_cast<Table>(i);
    uint64_t values = 0;
    absl::Status read =
        reader.Scan(table, "", [&](absl::string_view, absl::string_view) -> absl::StatusOr<bool> {
          ++values;
          return true;
        });
    report.checked[absl::StrCat("metadata ", TableName(table))] += values;
    if (read.ok()) continue;
    if (!absl::IsDataLoss(read)) return read;
    whole = false;
    report.findings.push_back(
        {"metadata", TableName(table), std::string(read.message()), kRestore});
  }
  return whole ? CheckLinks(reader, report) : absl::OkStatus();
}

}  // namespace gantry::metadata
