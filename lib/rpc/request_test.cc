#include "lib/rpc/request.h"

#include <grpcpp/test/server_context_test_spouse.h>

#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::rpc {
namespace {

using ::gantry::testing::Fails;

class RequestTest : public ::testing::Test {
 protected:
  void SetHeader(const std::string& name, const std::string& value) {
    spouse_.AddClientMetadata(name, value);
  }
  grpc::ServerContext context_;
  grpc::testing::ServerContextTestSpouse spouse_{&context_};  // Owns the headers' bytes.
};

TEST_F(RequestTest, NamespaceIsRequiredAndChecked) {
  EXPECT_THAT(RequestNamespace(context_),
              Fails(absl::StatusCode::kFailedPrecondition, "namespace is required"));
  SetHeader(kNamespaceHeader, "../etc");
  EXPECT_THAT(RequestNamespace(context_), Fails(absl::StatusCode::kInvalidArgument, "namespace"));
}

TEST_F(RequestTest, HeadersAreRead) {
  SetHeader(kNamespaceHeader, "k8s.io");
  SetHeader(kLeaseHeader, "l1");
  EXPECT_EQ(*RequestNamespace(context_), "k8s.io");
  EXPECT_EQ(RequestLease(context_), "l1");
}

}  // namespace
}  // namespace gantry::rpc
