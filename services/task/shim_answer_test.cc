#include "services/task/shim_answer.h"

#include "containerd/runtime/bootstrap/v1/bootstrap.pb.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::task {
namespace {

using ::gantry::testing::Fails;

TEST(ShimAnswerTest, ThreeFormsAreUnderstood) {
  absl::StatusOr<ShimAnswer> plain = ParseShimAnswer("unix:///run/s/abc");
  ASSERT_OK(plain);
  EXPECT_EQ(plain->version, 2);
  EXPECT_EQ(plain->address, "unix:///run/s/abc");

  absl::StatusOr<ShimAnswer> json =
      ParseShimAnswer(R"({"version":3,"address":"unix:///run/s/abc","protocol":"ttrpc"})");
  ASSERT_OK(json);
  EXPECT_EQ(json->version, 3);

  containerd::runtime::bootstrap::v1::BootstrapResult result;
  result.set_version(3);
  result.set_address("unix:///run/s/abc");
  result.set_protocol("ttrpc");
  absl::StatusOr<ShimAnswer> proto = ParseShimAnswer(result.SerializeAsString());
  ASSERT_OK(proto);
  EXPECT_EQ(proto->version, 3);
  EXPECT_EQ(proto->address, "unix:///run/s/abc");
}

TEST(ShimAnswerTest, WhatCannotBeDialledIsNamed) {
  EXPECT_THAT(ParseShimAnswer(R"({"version":2,"address":"unix:///x","protocol":"grpc"})"),
              Fails(absl::StatusCode::kUnimplemented, "grpc"));
  EXPECT_THAT(ParseShimAnswer("vsock://3:1024"), Fails(absl::StatusCode::kUnimplemented, "vsock"));
  EXPECT_THAT(ParseShimAnswer(R"({"version":9,"address":"unix:///x"})"),
              Fails(absl::StatusCode::kUnimplemented, "version 9"));
}

TEST(ShimAnswerTest, NoiseIsShownEscaped) {
  EXPECT_THAT(ParseShimAnswer(""), Fails(absl::StatusCode::kInvalidArgument, "no address"));
  EXPECT_THAT(ParseShimAnswer("panic: \x1b[31mno"),
              Fails(absl::StatusCode::kInvalidArgument, "panic: \\x1b[31mno"));
  EXPECT_THAT(ParseShimAnswer("{\"version\":"),
              Fails(absl::StatusCode::kInvalidArgument, "version"));
  EXPECT_THAT(ParseShimAnswer("unix:///a\nwarning"),
              Fails(absl::StatusCode::kInvalidArgument, "warning"));
}

}  // namespace
}  // namespace gantry::task
