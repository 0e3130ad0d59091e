#include "lib/rpc/status.h"

#include "gtest/gtest.h"

namespace gantry::rpc {
namespace {

TEST(StatusTest, EveryCodeSurvivesTheWire) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), code == 0 ? "" : "text");
    const grpc::Status wire = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(wire.error_code()), code);
    EXPECT_EQ(FromGrpcStatus(wire), status);
  }
}

}  // namespace
}  // namespace gantry::rpc
