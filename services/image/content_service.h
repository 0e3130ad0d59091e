#pragma once

#include <memory>

#include "containerd/services/content/v1/content.grpc.pb.h"
#include "services/image/blob_store.h"
#include "services/image/metadata.h"
#include "services/image/task_pool.h"

namespace gantry::image {

// containerd.services.content.v1.Content. Bytes come from the store, records from metadata. Reading
// and writing streams are parked without threads; their disk work runs in a small pool.
// Thread-safe.
class ContentService final
    : public containerd::services::content::v1::Content::WithCallbackMethod_Write<
          containerd::services::content::v1::Content::WithCallbackMethod_Read<
              containerd::services::content::v1::Content::Service>> {
 public:
  ContentService(BlobStore& blobs, Metadata& metadata);

  grpc::Status Info(grpc::ServerContext* context,
                    const containerd::services::content::v1::InfoRequest* request,
                    containerd::services::content::v1::InfoResponse* response) override;
  grpc::Status Update(grpc::ServerContext* context,
                      const containerd::services::content::v1::UpdateRequest* request,
                      containerd::services::content::v1::UpdateResponse* response) override;
  grpc::Status List(
      grpc::ServerContext* context,
      const containerd::services::content::v1::ListContentRequest* request,
      grpc::ServerWriter<containerd::services::content::v1::ListContentResponse>* writer) override;
  grpc::Status Delete(grpc::ServerContext* context,
                      const containerd::services::content::v1::DeleteContentRequest* request,
                      google::protobuf::Empty* response) override;
  grpc::Status Status(grpc::ServerContext* context,
                      const containerd::services::content::v1::StatusRequest* request,
                      containerd::services::content::v1::StatusResponse* response) override;
  grpc::Status ListStatuses(
      grpc::ServerContext* context,
      const containerd::services::content::v1::ListStatusesRequest* request,
      containerd::services::content::v1::ListStatusesResponse* response) override;
  grpc::Status Abort(grpc::ServerContext* context,
                     const containerd::services::content::v1::AbortRequest* request,
                     google::protobuf::Empty* response) override;

  grpc::ServerWriteReactor<containerd::services::content::v1::ReadContentResponse>* Read(
      grpc::CallbackServerContext* context,
      const containerd::services::content::v1::ReadContentRequest* request) override;
  grpc::ServerBidiReactor<containerd::services::content::v1::WriteContentRequest,
                          containerd::services::content::v1::WriteContentResponse>*
  Write(grpc::CallbackServerContext* context) override;

 private:
  absl::StatusOr<Caller> CallerOf(const grpc::ServerContextBase& context) const;

  BlobStore& blobs_;
  Metadata& metadata_;
  TaskPool pool_;
};

}  // namespace gantry::image
