#include "services/image/write_session.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"

namespace gantry::image {
namespace {

namespace content = containerd::services::content::v1;

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  out->set_seconds(absl::ToUnixSeconds(time));
  out->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(out->seconds()))));
}

absl::Status CheckDigest(const std::string& text) {
  if (text.empty()) return absl::OkStatus();
  return Digest::Parse(text).status();
}

}  // namespace

WriteSession::WriteSession(BlobStore& blobs, Metadata& metadata, Caller caller)
    : blobs_(blobs), metadata_(metadata), caller_(std::move(caller)) {}

uint64_t WriteSession::Offset() const { return shared_ ? shared_size_ : ingest_->offset(); }

Digest WriteSession::DigestSoFar() const {
  return shared_ ? *Digest::Parse(expected_) : ingest_->digest();
}

absl::StatusOr<content::WriteContentResponse> WriteSession::Handle(const Request& request) {
  if (committed_) return absl::FailedPreconditionError("the ingest was committed already");
  if (ref_.empty()) {
    RETURN_IF_ERROR(Begin(request));
  } else if (!request.ref().empty() && request.ref() != ref_) {
    return absl::InvalidArgumentError("the ref may not change within a stream");
  }
  RETURN_IF_ERROR(CheckDigest(request.expected()));
  if (request.total() < 0 || request.offset() < 0) {
    return absl::InvalidArgumentError("total and offset must not be negative");
  }
  if (!request.expected().empty() && request.expected() != expected_) {
    RETURN_IF_ERROR(CheckNotThere(request.expected()));
    expected_ = request.expected();
  }
  if (request.total() > 0) total_ = static_cast<uint64_t>(request.total());

  Response response;
  response.set_action(request.action());
  switch (request.action()) {
    case content::STAT:
      response.set_digest(DigestSoFar().str());
      break;
    case content::WRITE:
      RETURN_IF_ERROR(Write(request));
      response.set_digest(DigestSoFar().str());
      break;
    case content::COMMIT: {
      RETURN_IF_ERROR(Write(request));
      const Digest digest = DigestSoFar();
      RETURN_IF_ERROR(Commit(request));
      response.set_digest(digest.str());
      break;
    }
    default:
      return absl::InvalidArgumentError("unknown action");
  }
  response.set_offset(static_cast<int64_t>(Offset()));
  response.set_total(static_cast<int64_t>(total_));
  SetTime(started_at_, response.mutable_started_at());
  SetTime(absl::Now(), response.mutable_updated_at());
  if (request.action() == content::COMMIT) ingest_.reset();
  return response;
}

absl::Status WriteSession::Begin(const Request& request) {
  RETURN_IF_ERROR(CheckKey("ref", request.ref()));
  RETURN_IF_ERROR(CheckDigest(request.expected()));
  absl::StatusOr<metadata::v1::BeginIngestResponse> begun =
      metadata_.BeginIngest(caller_, request.ref(), request.expected(),
                            static_cast<uint64_t>(std::max<int64_t>(request.total(), 0)));
  if (absl::IsAlreadyExists(begun.status())) {
    ref_ = request.ref();
    DropIngest();
    return absl::AlreadyExistsError(
        absl::StrCat("content ", request.expected(), ": already exists"));
  }
  RETURN_IF_ERROR(begun.status());
  ref_ = request.ref();
  backend_id_ = begun->backend_id();
  expected_ = begun->expected_digest().empty() ? request.expected() : begun->expected_digest();
  total_ = begun->total_bytes();
  started_at_ = absl::FromUnixSeconds(begun->started_at().seconds()) +
                absl::Nanoseconds(begun->started_at().nanos());
  if (begun->shared() && !expected_.empty()) {
    ASSIGN_OR_RETURN(const Digest digest, Digest::Parse(expected_));
    absl::StatusOr<uint64_t> size = blobs_.BlobSize(digest);
    if (size.ok()) {
      shared_ = true;
      shared_size_ = *size;
      return absl::OkStatus();
    }
  }
  return OpenIngest();
}

absl::Status WriteSession::OpenIngest() {
  shared_ = false;
  ASSIGN_OR_RETURN(ingest_, blobs_.OpenIngest(backend_id_));
  return absl::OkStatus();
}

void WriteSession::DropIngest() {
  ingest_.reset();
  absl::StatusOr<std::string> aborted = metadata_.AbortIngest(caller_, ref_);
  absl::Status status = aborted.status();
  if (aborted.ok() && !aborted->empty()) status = blobs_.RemoveIngest(*aborted);
  if (!status.ok() && !absl::IsNotFound(status)) {
    log::Warning("an ingest could not be dropped; it expires within a day",
                 {{"ref", ref_}, {"error", status}});
  }
}

// An expected digest that comes late may name a blob that is visible already.
absl::Status WriteSession::CheckNotThere(const std::string& expected) {
  ASSIGN_OR_RETURN(const Digest digest, Digest::Parse(expected));
  if (!metadata_.GetBlob(caller_, digest).ok()) return absl::OkStatus();
  if (!caller_.lease.empty()) {
    RETURN_IF_ERROR(metadata_.AddToLease(caller_, "content", expected));
  }
  DropIngest();
  return absl::AlreadyExistsError(absl::StrCat("content ", expected, ": already exists"));
}

absl::Status WriteSession::Write(const Request& request) {
  const uint64_t offset = static_cast<uint64_t>(request.offset());
  if (offset > 0 && offset != Offset()) {
    return absl::OutOfRangeError(
        absl::StrCat("write @", offset, " must occur at current offset ", Offset()));
  }
  // A commit without data leaves what is there; 0 may just be unset.
  const bool truncate = offset == 0 && Offset() > 0 &&
                        (request.action() == content::WRITE || !request.data().empty());
  if (truncate) {
    if (shared_) RETURN_IF_ERROR(OpenIngest());
    RETURN_IF_ERROR(ingest_->Truncate());
  }
  if (request.data().empty()) return absl::OkStatus();
  if (shared_) {
    return absl::OutOfRangeError("all bytes are there already; commit without data");
  }
  if (total_ > 0 && ingest_->offset() + request.data().size() > total_) {
    return absl::FailedPreconditionError(
        absl::StrCat("more than the announced ", total_, " bytes"));
  }
  return ingest_->Append(request.data());
}

absl::Status WriteSession::Commit(const Request& request) {
  const uint64_t size = Offset();
  if (total_ > 0 && size != total_) {
    return absl::FailedPreconditionError(
        absl::StrCat("unexpected commit size ", size, ", expected ", total_));
  }
  const Digest digest = DigestSoFar();
  if (!expected_.empty() && digest.str() != expected_) {
    return absl::FailedPreconditionError(
        absl::StrCat("unexpected commit digest ", digest.str(), ", expected ", expected_));
  }
  StringMap labels;
  for (const auto& [key, value] : request.labels()) {
    RETURN_IF_ERROR(CheckLabel(key, value));
    labels[key] = value;
  }
  const auto record = [&]() -> absl::Status {
    return metadata_.CommitIngest(caller_, ref_, digest, size, labels).status();
  };
  absl::Status committed = shared_ ? blobs_.WithBlob(digest, [&](uint64_t) { return record(); })
                                   : ingest_->Commit(digest, record);
  if (absl::IsAlreadyExists(committed)) {
    return absl::AlreadyExistsError(absl::StrCat("content ", digest.str(), ": already exists"));
  }
  RETURN_IF_ERROR(committed);
  committed_ = true;
  return absl::OkStatus();
}

}  // namespace gantry::image
