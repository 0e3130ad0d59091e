// Our own services (gantry.metadata.v1) over the domain classes, apart from the streams that never
// end, which are in event_streams.h and blob_watch.h.
#pragma once

#include "gantry/metadata/v1/metadata.grpc.pb.h"
#include "services/metadata/blobs.h"
#include "services/metadata/bundles.h"
#include "services/metadata/collector.h"
#include "services/metadata/records.h"

namespace gantry::metadata {

// All are thread-safe; the domain objects are borrowed.

class RecordsService final : public v1::Records::Service {
 public:
  explicit RecordsService(Records& records) : records_(records) {}
  grpc::Status Get(grpc::ServerContext* context, const v1::GetRecordRequest* request,
                   v1::Record* response) override;
  grpc::Status List(grpc::ServerContext* context, const v1::ListRecordsRequest* request,
                    grpc::ServerWriter<v1::Record>* writer) override;
  grpc::Status Commit(grpc::ServerContext* context, const v1::CommitRecordsRequest* request,
                      v1::CommitRecordsResponse* response) override;

 private:
  Records& records_;
};

class StoreService final : public v1::Store::Service {
 public:
  explicit StoreService(Bundles& bundles) : bundles_(bundles) {}
  grpc::Status CreateContainer(grpc::ServerContext* context,
                               const v1::CreateContainerRequest* request,
                               v1::CreateContainerResponse* response) override;
  grpc::Status DeleteContainer(grpc::ServerContext* context,
                               const v1::DeleteContainerRequest* request,
                               v1::DeleteContainerResponse*) override;

 private:
  Bundles& bundles_;
};

class BlobsService final : public v1::Blobs::Service {
 public:
  explicit BlobsService(Blobs& blobs) : blobs_(blobs) {}
  grpc::Status Get(grpc::ServerContext* context, const v1::GetBlobRequest* request,
                   v1::Blob* response) override;
  grpc::Status List(grpc::ServerContext* context, const v1::ListBlobsRequest* request,
                    grpc::ServerWriter<v1::Blob>* writer) override;
  grpc::Status Update(grpc::ServerContext* context, const v1::UpdateBlobRequest* request,
                      v1::Blob* response) override;
  grpc::Status Delete(grpc::ServerContext* context, const v1::DeleteBlobRequest* request,
                      v1::DeleteBlobResponse*) override;
  grpc::Status BeginIngest(grpc::ServerContext* context, const v1::BeginIngestRequest* request,
                           v1::BeginIngestResponse* response) override;
  grpc::Status CommitIngest(grpc::ServerContext* context, const v1::CommitIngestRequest* request,
                            v1::Blob* response) override;
  grpc::Status AbortIngest(grpc::ServerContext* context, const v1::AbortIngestRequest* request,
                           v1::AbortIngestResponse* response) override;
  grpc::Status ListIngests(grpc::ServerContext* context, const v1::ListIngestsRequest* request,
                           grpc::ServerWriter<v1::Ingest>* writer) override;

 private:
  Blobs& blobs_;
};

}  // namespace gantry::metadata
