#include "services/metadata/blobs.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "containerd/events/events.pb.h"
#include "gantry/metadata/v1/storage.pb.h"
#include "lib/base/digest.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "services/metadata/labels.h"
#include "services/metadata/listing.h"
#include "services/metadata/objects.h"

namespace gantry::metadata {
namespace {

constexpr size_t kMaxRefBytes = 512;
constexpr absl::Duration kIngestLife = absl::Hours(24);

std::string KeyOf(const Caller& caller, absl::string_view name) {
  return JoinKey({caller.namespace_name, name});
}

absl::Status NoSuchBlob(absl::string_view digest) {
  return absl::NotFoundError(absl::StrCat("content '", digest, "': not found"));
}

absl::Status NoSuchIngest(absl::string_view ref) {
  return absl::NotFoundError(absl::StrCat("ingest '", ref, "': not found"));
}

absl::Status Visible(absl::string_view digest) {
  return absl::AlreadyExistsError(absl::StrCat("content '", digest, "': already exists"));
}

std::optional<std::string> Field(const v1::Blob& blob, const std::vector<std::string>& path) {
  if (path.size() == 1 && path[0] == "digest") return TextField(blob.digest());
  if (path.size() > 1 && path[0] == "labels") return LabelField(blob.labels(), path);
  return std::nullopt;  // `size` is accepted and never present.
}

absl::StatusOr<bool> IsRecordedAnywhere(const Reader& reader, const std::string& digest) {
  ASSIGN_OR_RETURN(std::vector<std::string> owners,
                   ListKeys(reader, Table::kBlobOwners, JoinPrefix({digest}), 1));
  return !owners.empty();
}

v1::BeginIngestResponse ToResponse(const v1::Ingest& ingest, bool shared) {
  v1::BeginIngestResponse response;
  response.set_backend_id(ingest.backend_id());
  response.set_shared(shared);
  *response.mutable_started_at() = ingest.started_at();
  response.set_total_bytes(ingest.total_bytes());
  response.set_expected_digest(ingest.expected_digest());
  return response;
}

// Fills in what the request knows and the ingest does not. Whether anything changed.
absl::StatusOr<bool> Amend(const v1::BeginIngestRequest& request, v1::Ingest& ingest) {
  bool changed = false;
  if (!request.expected_digest().empty() && request.expected_digest() != ingest.expected_digest()) {
    if (!ingest.expected_digest().empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("ingest '", request.ref(), "' is for '", ingest.expected_digest(),
                       "', not for '", request.expected_digest(), "'; abort it first"));
    }
    ingest.set_expected_digest(request.expected_digest());
    changed = true;
  }
  if (request.total_bytes() != 0 && request.total_bytes() != ingest.total_bytes()) {
    ingest.set_total_bytes(request.total_bytes());
    changed = true;
  }
  return changed;
}

}  // namespace

absl::StatusOr<v1::Blob> Blobs::Get(const Caller& caller, const std::string& digest) const {
  RETURN_IF_ERROR(Digest::Parse(digest).status());
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  ASSIGN_OR_RETURN(auto found, Load<v1::Blob>(reader, Table::kBlobs, KeyOf(caller, digest)));
  if (!found) return NoSuchBlob(digest);
  return *std::move(found);
}

absl::StatusOr<std::vector<v1::Blob>> Blobs::List(const Caller& caller,
                                                  const std::vector<std::string>& filters,
                                                  const std::string& after, size_t limit) const {
  ASSIGN_OR_RETURN(filter::Filter filter, filter::Filter::Parse(filters));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  std::vector<v1::Blob> blobs;
  auto visit = [&](absl::string_view key, absl::string_view value) -> absl::StatusOr<bool> {
    v1::Blob blob;
    RETURN_IF_ERROR(ParseStored(Table::kBlobs, key, value, blob));
    if (blob.digest() == after) return true;
    if (filter.Matches([&](const auto& path) { return Field(blob, path); }))
      blobs.push_back(std::move(blob));
    return blobs.size() < limit;
  };
  const std::string from = after.empty() ? "" : KeyOf(caller, after);
  RETURN_IF_ERROR(reader.Scan(Table::kBlobs, JoinPrefix({caller.namespace_name}), visit, from));
  return blobs;
}

absl::StatusOr<v1::Blob> Blobs::Update(const Caller& caller, const v1::UpdateBlobRequest& request) {
  RETURN_IF_ERROR(Digest::Parse(request.digest()).status());
  RETURN_IF_ERROR(CheckLabels(request.labels()));
  v1::Blob blob;
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(auto found,
                     Load<v1::Blob>(writer, Table::kBlobs, KeyOf(caller, request.digest())));
    if (!found) return NoSuchBlob(request.digest());
    blob = *std::move(found);
    Labels& labels = *blob.mutable_labels();
    if (request.update_paths().empty()) labels = request.labels();
    for (const std::string& path : request.update_paths()) {
      if (!ApplyLabelPath(path, "labels", request.labels(), labels)) {
        return absl::InvalidArgumentError(
            absl::StrCat("cannot update the field '", path, "' of content"));
      }
    }
    DropEmptyLabels(labels);
    *blob.mutable_updated_at() = ToProto(writer.now());
    return Store(writer, Table::kBlobs, KeyOf(caller, request.digest()), blob);
  }));
  on_garbage_();
  return blob;
}

absl::StatusOr<bool> Blobs::DeleteBlobIn(Writer& writer, const std::string& namespace_name,
                                         const std::string& digest) {
  ASSIGN_OR_RETURN(bool deleted, writer.Delete(Table::kBlobs, JoinKey({namespace_name, digest})));
  if (!deleted) return false;
  RETURN_IF_ERROR(writer.Delete(Table::kBlobOwners, JoinKey({digest, namespace_name})).status());
  containerd::events::ContentDelete event;
  event.set_digest(digest);
  RETURN_IF_ERROR(PublishEvent(writer, namespace_name, "/content/delete", event));
  return true;
}

absl::Status Blobs::Delete(const Caller& caller, const std::string& digest) {
  RETURN_IF_ERROR(Digest::Parse(digest).status());
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(bool deleted, DeleteBlobIn(writer, caller.namespace_name, digest));
    if (!deleted) return NoSuchBlob(digest);
    return RemoveFromLease(writer, caller, kContentResource, digest);
  }));
  garbage_.Offer({digest}, {});
  on_garbage_();
  return absl::OkStatus();
}

absl::StatusOr<v1::BeginIngestResponse> Blobs::BeginIngest(const Caller& caller,
                                                           const v1::BeginIngestRequest& request) {
  RETURN_IF_ERROR(CheckKey("ingest ref", request.ref(), kMaxRefBytes));
  if (!request.expected_digest().empty()) {
    RETURN_IF_ERROR(Annotate(Digest::Parse(request.expected_digest()).status(), "expected digest"));
  }
  bool visible = false;
  v1::BeginIngestResponse response;
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    visible = false;
    bool shared = false;
    if (!request.expected_digest().empty()) {
      ASSIGN_OR_RETURN(auto blob,
                       writer.Find(Table::kBlobs, KeyOf(caller, request.expected_digest())));
      visible = blob.has_value();
      if (visible) return AddToLease(writer, caller, kContentResource, request.expected_digest());
      ASSIGN_OR_RETURN(shared, IsRecordedAnywhere(writer, request.expected_digest()));
      shared = shared && !garbage_.IsClaimed(request.expected_digest());
    }
    ASSIGN_OR_RETURN(auto found,
                     Load<v1::StoredIngest>(writer, Table::kIngests, KeyOf(caller, request.ref())));
    v1::StoredIngest stored = found.value_or(v1::StoredIngest());
    bool changed = !found.has_value();
    if (changed) {
      RETURN_IF_ERROR(EnsureNamespace(writer, caller.namespace_name));
      v1::Ingest& ingest = *stored.mutable_ingest();
      ingest.set_namespace_(caller.namespace_name);
      ingest.set_ref(request.ref());
      ingest.set_backend_id(RandomHex(16));
      *ingest.mutable_started_at() = ToProto(writer.now());
    }
    ASSIGN_OR_RETURN(bool amended, Amend(request, *stored.mutable_ingest()));
    // A lease keeps it instead of the clock, from the first writer that brings one.
    if (caller.lease.empty() ? !found.has_value() : stored.has_expires_at()) changed = true;
    if (!caller.lease.empty()) {
      stored.clear_expires_at();
    } else if (!found) {
      *stored.mutable_expires_at() = ToProto(writer.now() + kIngestLife);
    }
    RETURN_IF_ERROR(AddToLease(writer, caller, kIngestResource, request.ref()));
    if (changed || amended)
      RETURN_IF_ERROR(Store(writer, Table::kIngests, KeyOf(caller, request.ref()), stored));
    response = ToResponse(stored.ingest(), shared);
    return absl::OkStatus();
  }));
  if (visible) return Visible(request.expected_digest());
  return response;
}

absl::StatusOr<v1::Blob> Blobs::CommitIngest(const Caller& caller,
                                             const v1::CommitIngestRequest& request) {
  RETURN_IF_ERROR(CheckKey("ingest ref", request.ref(), kMaxRefBytes));
  RETURN_IF_ERROR(Digest::Parse(request.digest()).status());
  RETURN_IF_ERROR(CheckLabels(request.labels()));
  bool visible = false;
  std::string backend_id;
  v1::Blob blob;
  RETURN_IF_ERROR(FAILPOINT("metadata.blobs.before_commit"));
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(auto ingest,
                     Load<v1::StoredIngest>(writer, Table::kIngests, KeyOf(caller, request.ref())));
    if (!ingest) return NoSuchIngest(request.ref());
    backend_id = ingest->ingest().backend_id();
    if (garbage_.IsClaimed(request.digest())) {
      return absl::UnavailableError(
          absl::StrCat("content '", request.digest(), "' is being deleted; try again"));
    }
    RETURN_IF_ERROR(writer.Delete(Table::kIngests, KeyOf(caller, request.ref())).status());
    RETURN_IF_ERROR(RemoveFromLease(writer, caller, kIngestResource, request.ref()));
    RETURN_IF_ERROR(AddToLease(writer, caller, kContentResource, request.digest()));
    ASSIGN_OR_RETURN(auto present, writer.Find(Table::kBlobs, KeyOf(caller, request.digest())));
    visible = present.has_value();
    if (visible) return absl::OkStatus();

    RETURN_IF_ERROR(EnsureNamespace(writer, caller.namespace_name));
    blob = v1::Blob();
    blob.set_digest(request.digest());
    blob.set_size_bytes(request.size_bytes());
    *blob.mutable_labels() = request.labels();
    DropEmptyLabels(*blob.mutable_labels());
    *blob.mutable_created_at() = ToProto(writer.now());
    *blob.mutable_updated_at() = blob.created_at();
    RETURN_IF_ERROR(Store(writer, Table::kBlobs, KeyOf(caller, request.digest()), blob));
    RETURN_IF_ERROR(
        writer.Put(Table::kBlobOwners, JoinKey({request.digest(), caller.namespace_name}), ""));
    containerd::events::ContentCreate event;
    event.set_digest(request.digest());
    event.set_size(static_cast<int64_t>(request.size_bytes()));
    return PublishEvent(writer, caller.namespace_name, "/content/create", event);
  }));
  // gantry-image removes its files itself, unless it never hears this call's answer.
  garbage_.Offer({}, {backend_id});
  if (visible) return Visible(request.digest());
  return blob;
}

absl::StatusOr<std::string> Blobs::AbortIngest(const Caller& caller, const std::string& ref) {
  RETURN_IF_ERROR(CheckKey("ingest ref", ref, kMaxRefBytes));
  v1::Ingest ingest;
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(auto found,
                     Load<v1::StoredIngest>(writer, Table::kIngests, KeyOf(caller, ref)));
    if (!found) return NoSuchIngest(ref);
    ingest = found->ingest();
    RETURN_IF_ERROR(writer.Delete(Table::kIngests, KeyOf(caller, ref)).status());
    return RemoveFromLease(writer, caller, kIngestResource, ref);
  }));
  // A claim may have been refused for this ingest's sake; a new offer of used blobs does no harm.
  std::vector<std::string> digests;
  if (!ingest.expected_digest().empty()) digests.push_back(ingest.expected_digest());
  garbage_.Offer(digests, {ingest.backend_id()});
  return ingest.backend_id();
}

absl::StatusOr<std::vector<v1::Ingest>> Blobs::ListIngests(const Caller& caller, bool all) const {
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  std::vector<v1::Ingest> ingests;
  auto visit = [&](absl::string_view key, absl::string_view value) -> absl::StatusOr<bool> {
    v1::StoredIngest stored;
    RETURN_IF_ERROR(ParseStored(Table::kIngests, key, value, stored));
    ingests.push_back(std::move(*stored.mutable_ingest()));
    return true;
  };
  RETURN_IF_ERROR(
      reader.Scan(Table::kIngests, all ? "" : JoinPrefix({caller.namespace_name}), visit));
  return ingests;
}

}  // namespace gantry::metadata
