#pragma once

#include <grpcpp/grpcpp.h>

#include "containerd/services/transfer/v1/transfer.grpc.pb.h"
#include "services/image/transfers.h"

namespace gantry::image {

// containerd.services.transfer.v1.Transfer. Thread-safe.
class TransferService final : public containerd::services::transfer::v1::Transfer::Service {
 public:
  explicit TransferService(Transfers& transfers) : transfers_(transfers) {}

  grpc::Status Transfer(grpc::ServerContext* context,
                        const containerd::services::transfer::v1::TransferRequest* request,
                        google::protobuf::Empty* response) override;

 private:
  Transfers& transfers_;
};

}  // namespace gantry::image
