#include "lib/rpc/status.h"

#include <string>

namespace gantry::rpc {

// gRPC's and Abseil's codes have the same numbers (both are google.rpc.Code).
grpc::Status ToGrpcStatus(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.raw_code()),
                      std::string(status.message()));
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace gantry::rpc
