// Garbage collection on the wire, with the stream of blobs for gantry-image.
#pragma once

#include "gantry/metadata/v1/metadata.grpc.pb.h"
#include "services/metadata/blob_garbage.h"
#include "services/metadata/collector.h"

namespace gantry::metadata {

// Thread-safe.
class GarbageService final
    : public v1::Garbage::WithCallbackMethod_WatchBlobs<v1::Garbage::Service> {
 public:
  GarbageService(Collector& collector, BlobGarbage& blobs, const Backends& backends)
      : collector_(collector), blobs_(blobs), backends_(backends) {}

  // Ends the streams, which otherwise would hold up the server's stop.
  void Stop();

  grpc::Status Plan(grpc::ServerContext* context, const v1::PlanRequest*,
                    v1::PlanResponse* response) override;
  grpc::Status Collect(grpc::ServerContext* context, const v1::CollectRequest*,
                       v1::CollectResponse* response) override;
  grpc::ServerWriteReactor<v1::GarbageBlob>* WatchBlobs(
      grpc::CallbackServerContext* context, const v1::WatchGarbageBlobsRequest* request) override;
  grpc::Status ClaimBlob(grpc::ServerContext* context, const v1::ClaimBlobRequest* request,
                         v1::ClaimBlobResponse*) override;
  grpc::Status ReleaseBlob(grpc::ServerContext* context, const v1::ReleaseBlobRequest* request,
                           v1::ReleaseBlobResponse*) override;

  class Watch;

 private:
  void Forget(Watch* watch);

  Collector& collector_;
  BlobGarbage& blobs_;
  const Backends& backends_;
  absl::Mutex mutex_;
  std::set<Watch*> watches_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gantry::metadata
