#include "services/metadata/leases.h"

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/digest.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "services/metadata/labels.h"
#include "services/metadata/listing.h"
#include "services/metadata/objects.h"

namespace gantry::metadata {
namespace {

using Lease = Leases::Lease;
using Resource = Leases::Resource;

// Clients make ids of their own kind ("1700000000-aB_-", base64 and all), so no identifier's rule.
constexpr size_t kMaxLeaseIdBytes = 128;
constexpr size_t kMaxResourceBytes = 512;

absl::Status CheckId(const std::string& id) { return CheckKey("lease id", id, kMaxLeaseIdBytes); }

std::string KeyOf(const Caller& caller, absl::string_view id) {
  return JoinKey({caller.namespace_name, id});
}

absl::Status NoSuch(absl::string_view id) {
  return absl::NotFoundError(absl::StrCat("lease '", id, "': not found"));
}

std::optional<std::string> Field(const Lease& lease, const std::vector<std::string>& path) {
  if (path.size() == 1 && path[0] == "id") return TextField(lease.id());
  if (path.size() > 1 && path[0] == "labels") return LabelField(lease.labels(), path);
  return std::nullopt;
}

absl::Status CheckResource(const Resource& resource) {
  RETURN_IF_ERROR(CheckKey("resource id", resource.id(), kMaxResourceBytes));
  if (resource.type() == kContentResource) {
    return Annotate(Digest::Parse(resource.id()).status(), "resource id");
  }
  if (resource.type() == kIngestResource || resource.type() == kImageResource)
    return absl::OkStatus();
  if (absl::StartsWith(resource.type(), kSnapshotResource)) {
    return CheckIdentifier(
        "snapshotter", absl::string_view(resource.type()).substr(sizeof(kSnapshotResource) - 1));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("resource type '", resource.type(),
                   "' is unknown; use content, ingests, images or snapshots/<snapshotter>"));
}

absl::Status CheckPresent(const Reader& reader, const Caller& caller, const std::string& id) {
  ASSIGN_OR_RETURN(auto present, reader.Find(Table::kLeases, KeyOf(caller, id)));
  return present ? absl::OkStatus() : NoSuch(id);
}

}  // namespace

absl::StatusOr<Lease> Leases::Create(
    const Caller& caller, const std::string& id,
    const google::protobuf::Map<std::string, std::string>& labels) {
  Lease lease;
  lease.set_id(id.empty() ? RandomHex(16) : id);
  *lease.mutable_labels() = labels;
  RETURN_IF_ERROR(CheckId(lease.id()));
  RETURN_IF_ERROR(CheckLabels(lease.labels()));
  DropEmptyLabels(*lease.mutable_labels());
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(auto present, writer.Find(Table::kLeases, KeyOf(caller, lease.id())));
    if (present)
      return absl::AlreadyExistsError(absl::StrCat("lease '", lease.id(), "': already exists"));
    RETURN_IF_ERROR(EnsureNamespace(writer, caller.namespace_name));
    *lease.mutable_created_at() = ToProto(writer.now());
    return Store(writer, Table::kLeases, KeyOf(caller, lease.id()), lease);
  }));
  return lease;
}

absl::StatusOr<bool> Leases::DeleteIn(Writer& writer, const Caller& caller, const std::string& id) {
  ASSIGN_OR_RETURN(bool deleted, writer.Delete(Table::kLeases, KeyOf(caller, id)));
  if (!deleted) return false;
  ASSIGN_OR_RETURN(
      std::vector<std::string> resources,
      ListKeys(writer, Table::kLeaseResources, JoinPrefix({caller.namespace_name, id})));
  for (const std::string& key : resources) {
    RETURN_IF_ERROR(writer.Delete(Table::kLeaseResources, key).status());
  }
  return true;
}

absl::Status Leases::Delete(const Caller& caller, const std::string& id) {
  RETURN_IF_ERROR(CheckId(id));
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(bool deleted, DeleteIn(writer, caller, id));
    return deleted ? absl::OkStatus() : NoSuch(id);
  }));
  on_garbage_();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Lease>> Leases::List(const Caller& caller,
                                                const std::vector<std::string>& filters) const {
  ASSIGN_OR_RETURN(filter::Filter filter, filter::Filter::Parse(filters));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  return ListMatching<Lease>(reader, Table::kLeases, JoinPrefix({caller.namespace_name}), filter,
                             Field);
}

absl::Status Leases::AddResource(const Caller& caller, const std::string& id,
                                 const Resource& resource) {
  RETURN_IF_ERROR(CheckId(id));
  RETURN_IF_ERROR(CheckResource(resource));
  const Caller holder{caller.namespace_name, id};
  return database_.Write(Database::Purpose::kGrow, [&](Writer& writer) {
    return AddToLease(writer, holder, resource.type(), resource.id());
  });
}

absl::Status Leases::DeleteResource(const Caller& caller, const std::string& id,
                                    const Resource& resource) {
  RETURN_IF_ERROR(CheckId(id));
  RETURN_IF_ERROR(CheckResource(resource));
  const Caller holder{caller.namespace_name, id};
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
    RETURN_IF_ERROR(CheckPresent(writer, caller, id));
    return RemoveFromLease(writer, holder, resource.type(), resource.id());
  }));
  on_garbage_();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Resource>> Leases::ListResources(const Caller& caller,
                                                            const std::string& id) const {
  RETURN_IF_ERROR(CheckId(id));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  RETURN_IF_ERROR(CheckPresent(reader, caller, id));
  std::vector<Resource> resources;
  auto visit = [&](absl::string_view key, absl::string_view) -> absl::StatusOr<bool> {
    const std::vector<absl::string_view> parts = SplitKey(key);
    if (parts.size() != 4) return absl::DataLossError("a lease's resource has a damaged key");
    Resource resource;
    resource.set_type(std::string(parts[2]));
    resource.set_id(std::string(parts[3]));
    resources.push_back(std::move(resource));
    return true;
  };
  RETURN_IF_ERROR(
      reader.Scan(Table::kLeaseResources, JoinPrefix({caller.namespace_name, id}), visit));
  return resources;
}

}  // namespace gantry::metadata
