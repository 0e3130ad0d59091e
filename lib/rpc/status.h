// Statuses on the wire. Codes map one to one; the message travels as it is, payloads do not.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace gantry::rpc {

grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace gantry::rpc
