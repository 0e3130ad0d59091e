#include "services/metadata/suite_services.h"

#include <string>
#include <utility>
#include <vector>

#include "services/metadata/service_call.h"

namespace gantry::metadata {
namespace {

constexpr size_t kPage = 1000;

absl::Status ClientGone() { return absl::CancelledError("the client went away"); }

}  // namespace

grpc::Status RecordsService::Get(grpc::ServerContext* context, const v1::GetRecordRequest* request,
                                 v1::Record* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(records_.Get(caller, request->bucket(), request->key()), response);
  });
}

grpc::Status RecordsService::List(grpc::ServerContext* context,
                                  const v1::ListRecordsRequest* request,
                                  grpc::ServerWriter<v1::Record>* writer) {
  return InNamespace(context, [&](const Caller& caller) -> absl::Status {
    std::string after;
    while (true) {
      ASSIGN_OR_RETURN(std::vector<v1::Record> page,
                       records_.List(caller, request->bucket(), request->prefix(), after, kPage));
      if (page.empty()) return absl::OkStatus();
      for (const v1::Record& record : page) {
        if (!writer->Write(record)) return ClientGone();
      }
      after = page.back().key();
    }
  });
}

grpc::Status RecordsService::Commit(grpc::ServerContext* context,
                                    const v1::CommitRecordsRequest* request,
                                    v1::CommitRecordsResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return AssignAll(records_.Commit(caller, request->writes()), response->mutable_revisions());
  });
}

grpc::Status StoreService::CreateContainer(grpc::ServerContext* context,
                                           const v1::CreateContainerRequest* request,
                                           v1::CreateContainerResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(bundles_.CreateContainer(caller, *request), response);
  });
}

grpc::Status StoreService::DeleteContainer(grpc::ServerContext* context,
                                           const v1::DeleteContainerRequest* request,
                                           v1::DeleteContainerResponse*) {
  return InNamespace(
      context, [&](const Caller& caller) { return bundles_.DeleteContainer(caller, *request); });
}

grpc::Status BlobsService::Get(grpc::ServerContext* context, const v1::GetBlobRequest* request,
                               v1::Blob* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(blobs_.Get(caller, request->digest()), response);
  });
}

grpc::Status BlobsService::List(grpc::ServerContext* context, const v1::ListBlobsRequest* request,
                                grpc::ServerWriter<v1::Blob>* writer) {
  return InNamespace(context, [&](const Caller& caller) -> absl::Status {
    std::string after;
    while (true) {
      ASSIGN_OR_RETURN(std::vector<v1::Blob> page,
                       blobs_.List(caller, ToVector(request->filters()), after, kPage));
      if (page.empty()) return absl::OkStatus();
      for (const v1::Blob& blob : page) {
        if (!writer->Write(blob)) return ClientGone();
      }
      after = page.back().digest();
    }
  });
}

grpc::Status BlobsService::Update(grpc::ServerContext* context,
                                  const v1::UpdateBlobRequest* request, v1::Blob* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(blobs_.Update(caller, *request), response);
  });
}

grpc::Status BlobsService::Delete(grpc::ServerContext* context,
                                  const v1::DeleteBlobRequest* request, v1::DeleteBlobResponse*) {
  return InNamespace(
      context, [&](const Caller& caller) { return blobs_.Delete(caller, request->digest()); });
}

grpc::Status BlobsService::BeginIngest(grpc::ServerContext* context,
                                       const v1::BeginIngestRequest* request,
                                       v1::BeginIngestResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(blobs_.BeginIngest(caller, *request), response);
  });
}

grpc::Status BlobsService::CommitIngest(grpc::ServerContext* context,
                                        const v1::CommitIngestRequest* request,
                                        v1::Blob* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(blobs_.CommitIngest(caller, *request), response);
  });
}

grpc::Status BlobsService::AbortIngest(grpc::ServerContext* context,
                                       const v1::AbortIngestRequest* request,
                                       v1::AbortIngestResponse* response) {
  return InNamespace(context, [&](const Caller& caller) {
    return Assign(blobs_.AbortIngest(caller, request->ref()), response->mutable_backend_id());
  });
}

grpc::Status BlobsService::ListIngests(grpc::ServerContext* context,
                                       const v1::ListIngestsRequest* request,
                                       grpc::ServerWriter<v1::Ingest>* writer) {
  auto list = [&](const Caller& caller) -> absl::Status {
    ASSIGN_OR_RETURN(std::vector<v1::Ingest> ingests,
                     blobs_.ListIngests(caller, request->all_namespaces()));
    for (const v1::Ingest& ingest : ingests) {
      if (!writer->Write(ingest)) return ClientGone();
    }
    return absl::OkStatus();
  };
  if (request->all_namespaces()) return rpc::ToGrpcStatus(list(Caller()));
  return InNamespace(context, list);
}

}  // namespace gantry::metadata
