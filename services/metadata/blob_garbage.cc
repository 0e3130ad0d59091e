#include "services/metadata/blob_garbage.h"

#include "absl/strings/str_cat.h"
#include "gantry/metadata/v1/storage.pb.h"
#include "lib/base/digest.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "services/metadata/listing.h"

namespace gantry::metadata {
namespace {

absl::StatusOr<bool> IsRecorded(const Reader& reader, const std::string& digest) {
  ASSIGN_OR_RETURN(std::vector<std::string> owners,
                   ListKeys(reader, Table::kBlobOwners, JoinPrefix({digest}), 1));
  return !owners.empty();
}

absl::StatusOr<bool> IsExpected(const Reader& reader, const std::string& digest) {
  bool expected = false;
  auto visit = [&](absl::string_view key, absl::string_view value) -> absl::StatusOr<bool> {
    v1::StoredIngest stored;
    RETURN_IF_ERROR(ParseStored(Table::kIngests, key, value, stored));
    expected = stored.ingest().expected_digest() == digest;
    return !expected;
  };
  RETURN_IF_ERROR(reader.Scan(Table::kIngests, "", visit));
  return expected;
}

absl::StatusOr<std::set<std::string>> RecordedIngests(const Reader& reader) {
  std::set<std::string> backend_ids;
  auto visit = [&](absl::string_view key, absl::string_view value) -> absl::StatusOr<bool> {
    v1::StoredIngest stored;
    RETURN_IF_ERROR(ParseStored(Table::kIngests, key, value, stored));
    backend_ids.insert(stored.ingest().backend_id());
    return true;
  };
  RETURN_IF_ERROR(reader.Scan(Table::kIngests, "", visit));
  return backend_ids;
}

}  // namespace

absl::Status BlobGarbage::AddWatcher(Watcher* watcher,
                                     const std::vector<std::string>& known_digests,
                                     const std::vector<std::string>& known_ingests) {
  // Registered first: what becomes garbage from here on is offered, if need be twice.
  {
    absl::MutexLock lock(&mutex_);
    watchers_.insert(watcher);
  }
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  for (const std::string& digest : known_digests) {
    RETURN_IF_ERROR(Digest::Parse(digest).status());
    ASSIGN_OR_RETURN(bool recorded, IsRecorded(reader, digest));
    if (!recorded) watcher->OfferBlob(digest);
  }
  if (known_ingests.empty()) return absl::OkStatus();
  // Those were recorded before their files were made, so what has no record by now never gets one.
  ASSIGN_OR_RETURN(const std::set<std::string> recorded, RecordedIngests(reader));
  for (const std::string& backend_id : known_ingests) {
    if (recorded.count(backend_id) == 0) watcher->OfferIngest(backend_id);
  }
  return absl::OkStatus();
}

void BlobGarbage::RemoveWatcher(Watcher* watcher) {
  absl::MutexLock lock(&mutex_);
  watchers_.erase(watcher);
  if (watchers_.empty()) claims_.clear();
}

void BlobGarbage::Offer(const std::vector<std::string>& digests,
                        const std::vector<std::string>& ingests) {
  // Under the lock, so that no watcher goes while it is offered something; offers do not block.
  absl::MutexLock lock(&mutex_);
  for (Watcher* watcher : watchers_) {
    for (const std::string& digest : digests) watcher->OfferBlob(digest);
    for (const std::string& backend_id : ingests) watcher->OfferIngest(backend_id);
  }
}

absl::Status BlobGarbage::Claim(const std::string& digest) {
  RETURN_IF_ERROR(Digest::Parse(digest).status());
  RETURN_IF_ERROR(FAILPOINT("metadata.blob_garbage.before_claim"));
  return database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(bool recorded, IsRecorded(writer, digest));
    ASSIGN_OR_RETURN(bool expected, IsExpected(writer, digest));
    if (recorded || expected) {
      return absl::FailedPreconditionError(
          absl::StrCat("blob '", digest, "' is in use again; keep it"));
    }
    absl::MutexLock lock(&mutex_);
    claims_.insert(digest);
    return absl::OkStatus();
  });
}

void BlobGarbage::Release(const std::string& digest, bool deleted) {
  {
    absl::MutexLock lock(&mutex_);
    claims_.erase(digest);
  }
  (void)deleted;  // Either way it is no longer ours to know: the bytes are offered again at the
                  // next watch.
}

bool BlobGarbage::IsClaimed(const std::string& digest) const {
  absl::MutexLock lock(&mutex_);
  return claims_.count(digest) > 0;
}

}  // namespace gantry::metadata
