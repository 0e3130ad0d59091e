#include "services/metadata/records.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gantry/metadata/v1/storage.pb.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "services/metadata/objects.h"

namespace gantry::metadata {
namespace {

constexpr size_t kMaxKeyBytes = 512;
constexpr size_t kMaxValueBytes = 1 << 20;
constexpr int kMaxWrites = 1000;
constexpr size_t kMaxPageBytes = 4 << 20;

std::string KeyOf(const Caller& caller, absl::string_view bucket, absl::string_view key) {
  return JoinKey({caller.namespace_name, bucket, key});
}

absl::Status CheckName(absl::string_view bucket, absl::string_view key) {
  RETURN_IF_ERROR(CheckIdentifier("record bucket", bucket));
  return CheckKey("record key", key, kMaxKeyBytes);
}

std::string NameOf(absl::string_view bucket, absl::string_view key) {
  return absl::StrCat("record '", key, "' in bucket '", bucket, "'");
}

// The new revision; 0 for a removed record.
absl::StatusOr<uint64_t> Apply(Writer& writer, const Caller& caller, const v1::RecordWrite& write) {
  const std::string key = KeyOf(caller, write.bucket(), write.key());
  ASSIGN_OR_RETURN(auto present, Load<v1::StoredRecord>(writer, Table::kRecords, key));
  if (write.must_not_exist() && present) {
    return absl::AlreadyExistsError(
        absl::StrCat(NameOf(write.bucket(), write.key()), ": already exists"));
  }
  const uint64_t revision = present ? present->revision() : 0;
  if (write.expected_revision() != 0 && write.expected_revision() != revision) {
    return absl::FailedPreconditionError(
        absl::StrCat(NameOf(write.bucket(), write.key()), " has revision ", revision, ", not ",
                     write.expected_revision(), "; read it again"));
  }
  if (write.remove()) {
    RETURN_IF_ERROR(writer.Delete(Table::kRecords, key).status());
    return uint64_t{0};
  }
  v1::StoredRecord stored;
  stored.set_value(write.value());
  stored.set_revision(revision + 1);
  RETURN_IF_ERROR(Store(writer, Table::kRecords, key, stored));
  return revision + 1;
}

}  // namespace

absl::StatusOr<v1::Record> Records::Get(const Caller& caller, const std::string& bucket,
                                        const std::string& key) const {
  RETURN_IF_ERROR(CheckName(bucket, key));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  ASSIGN_OR_RETURN(auto found,
                   Load<v1::StoredRecord>(reader, Table::kRecords, KeyOf(caller, bucket, key)));
  if (!found) return absl::NotFoundError(absl::StrCat(NameOf(bucket, key), ": not found"));
  v1::Record record;
  record.set_bucket(bucket);
  record.set_key(key);
  record.set_value(std::move(*found->mutable_value()));
  record.set_revision(found->revision());
  return record;
}

absl::StatusOr<std::vector<v1::Record>> Records::List(const Caller& caller,
                                                      const std::string& bucket,
                                                      const std::string& prefix,
                                                      const std::string& after,
                                                      size_t limit) const {
  RETURN_IF_ERROR(CheckIdentifier("record bucket", bucket));
  if (!prefix.empty()) RETURN_IF_ERROR(CheckKey("record prefix", prefix, kMaxKeyBytes));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  std::vector<v1::Record> records;
  size_t bytes = 0;
  auto visit = [&](absl::string_view key, absl::string_view value) -> absl::StatusOr<bool> {
    const std::vector<absl::string_view> parts = SplitKey(key);
    if (parts.size() != 3) return absl::DataLossError("a record has a damaged key");
    if (!after.empty() && parts[2] == after) return true;
    v1::StoredRecord stored;
    RETURN_IF_ERROR(ParseStored(Table::kRecords, key, value, stored));
    v1::Record record;
    record.set_bucket(bucket);
    record.set_key(std::string(parts[2]));
    record.set_value(std::move(*stored.mutable_value()));
    record.set_revision(stored.revision());
    bytes += record.value().size();
    records.push_back(std::move(record));
    return records.size() < limit && bytes < kMaxPageBytes;
  };
  const std::string from = after.empty() ? "" : KeyOf(caller, bucket, after);
  RETURN_IF_ERROR(
      reader.Scan(Table::kRecords, JoinKey({caller.namespace_name, bucket, prefix}), visit, from));
  return records;
}

absl::Status Records::Check(const Writes& writes) {
  if (writes.size() > kMaxWrites) {
    return absl::InvalidArgumentError(absl::StrCat(
        writes.size(), " record writes at once; at most ", kMaxWrites, " are allowed"));
  }
  for (const v1::RecordWrite& write : writes) {
    RETURN_IF_ERROR(CheckName(write.bucket(), write.key()));
    if (write.value().size() > kMaxValueBytes) {
      return absl::InvalidArgumentError(absl::StrCat(NameOf(write.bucket(), write.key()), " has ",
                                                     write.value().size(), " bytes; at most ",
                                                     kMaxValueBytes, " are allowed"));
    }
  }
  return absl::OkStatus();
}

bool Records::OnlyRemoves(const Writes& writes) {
  for (const v1::RecordWrite& write : writes) {
    if (!write.remove()) return false;
  }
  return true;
}

absl::StatusOr<std::vector<uint64_t>> Records::CommitIn(Writer& writer, const Caller& caller,
                                                        const Writes& writes) {
  std::vector<uint64_t> revisions;
  if (!OnlyRemoves(writes)) RETURN_IF_ERROR(EnsureNamespace(writer, caller.namespace_name));
  for (const v1::RecordWrite& write : writes) {
    ASSIGN_OR_RETURN(uint64_t revision, Apply(writer, caller, write));
    revisions.push_back(revision);
  }
  return revisions;
}

absl::StatusOr<std::vector<uint64_t>> Records::Commit(const Caller& caller, const Writes& writes) {
  RETURN_IF_ERROR(Check(writes));
  std::vector<uint64_t> revisions;
  const auto purpose = OnlyRemoves(writes) ? Database::Purpose::kFree : Database::Purpose::kGrow;
  RETURN_IF_ERROR(database_.Write(purpose, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(revisions, CommitIn(writer, caller, writes));
    return absl::OkStatus();
  }));
  return revisions;
}

}  // namespace gantry::metadata
