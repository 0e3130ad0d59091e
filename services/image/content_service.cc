#include "services/image/content_service.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/filter/filter.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"
#include "lib/sys/errno.h"
#include "services/image/write_session.h"

namespace gantry::image {
namespace {

namespace content = containerd::services::content::v1;

constexpr size_t kReadChunkBytes = 1 << 20;
constexpr int kListChunk = 100;
constexpr size_t kPoolThreads = 16;

content::Info ToInfo(const metadata::v1::Blob& blob) {
  content::Info info;
  info.set_digest(blob.digest());
  info.set_size(static_cast<int64_t>(blob.size_bytes()));
  *info.mutable_created_at() = blob.created_at();
  *info.mutable_updated_at() = blob.updated_at();
  *info.mutable_labels() = blob.labels();
  return info;
}

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  out->set_seconds(absl::ToUnixSeconds(time));
  out->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(out->seconds()))));
}

absl::StatusOr<content::Status> ToStatus(const BlobStore& blobs,
                                         const metadata::v1::Ingest& ingest) {
  ASSIGN_OR_RETURN(const IngestState state, blobs.StatIngest(ingest.backend_id()));
  content::Status status;
  status.set_ref(ingest.ref());
  status.set_offset(static_cast<int64_t>(state.offset));
  status.set_total(static_cast<int64_t>(ingest.total_bytes()));
  status.set_expected(ingest.expected_digest());
  *status.mutable_started_at() = ingest.started_at();
  SetTime(state.updated_at, status.mutable_updated_at());
  return status;
}

// Streams a blob, reading the next chunk in the pool.
class ReadReactor final : public grpc::ServerWriteReactor<content::ReadContentResponse> {
 public:
  ReadReactor(TaskPool& pool, BlobStore& blobs, Metadata& metadata, absl::StatusOr<Caller> caller,
              const content::ReadContentRequest& request)
      : pool_(pool) {
    pool_.Run([this, &blobs, &metadata, caller = std::move(caller), request] {
      const absl::Status opened = Open(blobs, metadata, caller, request);
      if (!opened.ok()) return Finish(rpc::ToGrpcStatus(opened));
      Next();
    });
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the reader has gone"));
    pool_.Run([this] { Next(); });
  }
  void OnDone() override { delete this; }

 private:
  absl::Status Open(BlobStore& blobs, Metadata& metadata, const absl::StatusOr<Caller>& caller,
                    const content::ReadContentRequest& request) {
    RETURN_IF_ERROR(caller.status());
    ASSIGN_OR_RETURN(const Digest digest, Digest::Parse(request.digest()));
    if (request.offset() < 0 || request.size() < 0) {
      return absl::InvalidArgumentError("offset and size must not be negative");
    }
    RETURN_IF_ERROR(metadata.GetBlob(*caller, digest).status());
    uint64_t size = 0;
    ASSIGN_OR_RETURN(file_, blobs.OpenBlob(digest, &size));
    offset_ = static_cast<uint64_t>(request.offset());
    if (offset_ > size) {
      return absl::OutOfRangeError(
          absl::StrCat("offset ", offset_, " is past the ", size, " bytes of ", digest.str()));
    }
    end_ = size;
    if (request.size() > 0) {
      end_ = std::min(size, offset_ + static_cast<uint64_t>(request.size()));
    }
    return absl::OkStatus();
  }

  void Next() {
    if (offset_ >= end_) return Finish(grpc::Status::OK);
    const size_t want = static_cast<size_t>(std::min<uint64_t>(kReadChunkBytes, end_ - offset_));
    std::string* data = response_.mutable_data();
    data->resize(want);
    ssize_t bytes = 0;
    do {
      bytes = ::pread(file_.get(), &(*data)[0], want, static_cast<off_t>(offset_));
    } while (bytes < 0 && errno == EINTR);
    if (bytes <= 0) {
      const absl::Status error = bytes < 0 ? sys::ErrnoError(errno, "read content")
                                           : absl::DataLossError("the content is cut short");
      return Finish(rpc::ToGrpcStatus(error));
    }
    data->resize(static_cast<size_t>(bytes));
    response_.set_offset(static_cast<int64_t>(offset_));
    offset_ += static_cast<uint64_t>(bytes);
    StartWrite(&response_);
  }

  TaskPool& pool_;
  sys::UniqueFd file_;
  uint64_t offset_ = 0;
  uint64_t end_ = 0;
  content::ReadContentResponse response_;
};

// Carries messages of a Write stream to their session and back, one at a time.
class WriteReactor final
    : public grpc::ServerBidiReactor<content::WriteContentRequest, content::WriteContentResponse> {
 public:
  WriteReactor(TaskPool& pool, BlobStore& blobs, Metadata& metadata, absl::StatusOr<Caller> caller)
      : pool_(pool) {
    if (!caller.ok()) {
      Finish(rpc::ToGrpcStatus(caller.status()));
      return;
    }
    session_ = std::make_unique<WriteSession>(blobs, metadata, *std::move(caller));
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {  // The client has finished, or is gone: the ingest stays for another time.
      session_.reset();
      return Finish(grpc::Status::OK);
    }
    pool_.Run([this] {
      absl::StatusOr<content::WriteContentResponse> response = session_->Handle(request_);
      if (!response.ok()) {
        session_.reset();
        return Finish(rpc::ToGrpcStatus(response.status()));
      }
      response_ = *std::move(response);
      if (session_->committed()) {
        session_.reset();
        return StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
      }
      StartWrite(&response_);
    });
  }
  void OnWriteDone(bool ok) override {
    if (session_ == nullptr) return;  // Finished with the last message.
    if (!ok) {
      session_.reset();
      return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the writer has gone"));
    }
    StartRead(&request_);
  }
  void OnDone() override { delete this; }

 private:
  TaskPool& pool_;
  std::unique_ptr<WriteSession> session_;
  content::WriteContentRequest request_;
  content::WriteContentResponse response_;
};

}  // namespace

ContentService::ContentService(BlobStore& blobs, Metadata& metadata)
    : blobs_(blobs), metadata_(metadata), pool_(kPoolThreads) {}

absl::StatusOr<Caller> ContentService::CallerOf(const grpc::ServerContextBase& context) const {
  Caller caller;
  ASSIGN_OR_RETURN(caller.namespace_name, rpc::RequestNamespace(context));
  caller.lease = rpc::RequestLease(context);
  return caller;
}

grpc::Status ContentService::Info(grpc::ServerContext* context, const content::InfoRequest* request,
                                  content::InfoResponse* response) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Caller caller, CallerOf(*context));
    ASSIGN_OR_RETURN(const Digest digest, Digest::Parse(request->digest()));
    ASSIGN_OR_RETURN(const metadata::v1::Blob blob, metadata_.GetBlob(caller, digest));
    *response->mutable_info() = ToInfo(blob);
    return absl::OkStatus();
  };
  return rpc::ToGrpcStatus(run());
}

grpc::Status ContentService::Update(grpc::ServerContext* context,
                                    const content::UpdateRequest* request,
                                    content::UpdateResponse* response) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Caller caller, CallerOf(*context));
    ASSIGN_OR_RETURN(const Digest digest, Digest::Parse(request->info().digest()));
    const StringMap labels(request->info().labels().begin(), request->info().labels().end());
    for (const auto& [key, value] : labels) RETURN_IF_ERROR(CheckLabel(key, value));
    const std::vector<std::string> paths(request->update_mask().paths().begin(),
                                         request->update_mask().paths().end());
    ASSIGN_OR_RETURN(const metadata::v1::Blob blob,
                     metadata_.UpdateBlob(caller, digest, labels, paths));
    *response->mutable_info() = ToInfo(blob);
    return absl::OkStatus();
  };
  return rpc::ToGrpcStatus(run());
}

grpc::Status ContentService::List(grpc::ServerContext* context,
                                  const content::ListContentRequest* request,
                                  grpc::ServerWriter<content::ListContentResponse>* writer) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Caller caller, CallerOf(*context));
    const std::vector<std::string> filters(request->filters().begin(), request->filters().end());
    content::ListContentResponse chunk;
    const auto flush = [&]() -> absl::Status {
      if (chunk.info_size() > 0 && !writer->Write(chunk)) {
        return absl::CancelledError("the reader has gone");
      }
      chunk.Clear();
      return absl::OkStatus();
    };
    RETURN_IF_ERROR(metadata_.ListBlobs(caller, filters, [&](const metadata::v1::Blob& blob) {
      *chunk.add_info() = ToInfo(blob);
      return chunk.info_size() < kListChunk ? absl::OkStatus() : flush();
    }));
    return flush();
  };
  return rpc::ToGrpcStatus(run());
}

grpc::Status ContentService::Delete(grpc::ServerContext* context,
                                    const content::DeleteContentRequest* request,
                                    google::protobuf::Empty*) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Caller caller, CallerOf(*context));
    ASSIGN_OR_RETURN(const Digest digest, Digest::Parse(request->digest()));
    return metadata_.DeleteBlob(caller, digest);
  };
  return rpc::ToGrpcStatus(run());
}

grpc::Status ContentService::Status(grpc::ServerContext* context,
                                    const content::StatusRequest* request,
                                    content::StatusResponse* response) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Caller caller, CallerOf(*context));
    RETURN_IF_ERROR(CheckKey("ref", request->ref()));
    ASSIGN_OR_RETURN(const auto ingests, metadata_.ListIngests(caller, false));
    for (const metadata::v1::Ingest& ingest : ingests) {
      if (ingest.ref() != request->ref()) continue;
      ASSIGN_OR_RETURN(*response->mutable_status(), ToStatus(blobs_, ingest));
      return absl::OkStatus();
    }
    return absl::NotFoundError(absl::StrCat("ingest '", request->ref(), "': not found"));
  };
  return rpc::ToGrpcStatus(run());
}

grpc::Status ContentService::ListStatuses(grpc::ServerContext* context,
                                          const content::ListStatusesRequest* request,
                                          content::ListStatusesResponse* response) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Caller caller, CallerOf(*context));
    const std::vector<std::string> filters(request->filters().begin(), request->filters().end());
    ASSIGN_OR_RETURN(const filter::Filter matcher, filter::Filter::Parse(filters));
    ASSIGN_OR_RETURN(const auto ingests, metadata_.ListIngests(caller, false));
    for (const metadata::v1::Ingest& ingest : ingests) {
      const bool matches = matcher.Matches(
          [&ingest](const std::vector<std::string>& path) -> std::optional<std::string> {
            if (path.size() == 1 && path[0] == "ref") return ingest.ref();
            return std::nullopt;
          });
      if (!matches) continue;
      ASSIGN_OR_RETURN(*response->add_statuses(), ToStatus(blobs_, ingest));
    }
    return absl::OkStatus();
  };
  return rpc::ToGrpcStatus(run());
}

grpc::Status ContentService::Abort(grpc::ServerContext* context,
                                   const content::AbortRequest* request, google::protobuf::Empty*) {
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Caller caller, CallerOf(*context));
    RETURN_IF_ERROR(CheckKey("ref", request->ref()));
    ASSIGN_OR_RETURN(const std::string backend_id, metadata_.AbortIngest(caller, request->ref()));
    return blobs_.RemoveIngest(backend_id);
  };
  return rpc::ToGrpcStatus(run());
}

grpc::ServerWriteReactor<content::ReadContentResponse>* ContentService::Read(
    grpc::CallbackServerContext* context, const content::ReadContentRequest* request) {
  return new ReadReactor(pool_, blobs_, metadata_, CallerOf(*context), *request);
}

grpc::ServerBidiReactor<content::WriteContentRequest, content::WriteContentResponse>*
ContentService::Write(grpc::CallbackServerContext* context) {
  return new WriteReactor(pool_, blobs_, metadata_, CallerOf(*context));
}

}  // namespace gantry::image
