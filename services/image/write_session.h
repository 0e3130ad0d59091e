// One stream of Content.Write: an ingest from its first message to its commit (contracts, 3.4).
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "containerd/services/content/v1/content.pb.h"
#include "services/image/blob_store.h"
#include "services/image/metadata.h"

namespace gantry::image {

// Thread-compatible: one message after the other.
class WriteSession {
 public:
  WriteSession(BlobStore& blobs, Metadata& metadata, Caller caller);

  // Answers one message. After an error or a commit the session is over.
  // Errors: AlreadyExists — the blob is visible (and leased): success to clients; Unavailable — the
  // ref is locked; OutOfRange — wrong offset; FailedPrecondition — size or digest differ at commit.
  absl::StatusOr<containerd::services::content::v1::WriteContentResponse> Handle(
      const containerd::services::content::v1::WriteContentRequest& request);

  bool committed() const { return committed_; }

 private:
  using Request = containerd::services::content::v1::WriteContentRequest;
  using Response = containerd::services::content::v1::WriteContentResponse;

  absl::Status Begin(const Request& request);
  absl::Status CheckNotThere(const std::string& expected);
  absl::Status Write(const Request& request);
  absl::Status Commit(const Request& request);
  absl::Status OpenIngest();
  uint64_t Offset() const;
  Digest DigestSoFar() const;
  void DropIngest();

  BlobStore& blobs_;
  Metadata& metadata_;
  const Caller caller_;
  std::string ref_;
  std::string backend_id_;
  std::string expected_;
  uint64_t total_ = 0;
  absl::Time started_at_;
  // The bytes are in the store for another namespace: nothing needs to be sent.
  bool shared_ = false;
  uint64_t shared_size_ = 0;
  std::unique_ptr<Ingest> ingest_;
  bool committed_ = false;
};

}  // namespace gantry::image
