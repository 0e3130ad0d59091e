#include "services/gateway/introspection_service.h"

#include "gtest/gtest.h"

namespace gantry::gateway {
namespace {

namespace v1 = containerd::services::introspection::v1;

class IntrospectionServiceTest : public ::testing::Test {
 protected:
  grpc::Status Plugins(const std::vector<std::string>& filters) {
    v1::PluginsRequest request;
    for (const std::string& filter : filters) request.add_filters(filter);
    response_.Clear();
    return service_.Plugins(&context_, &request, &response_);
  }
  grpc::ServerContext context_;
  IntrospectionService service_{"u-u-i-d", "/root/of/layers"};
  v1::PluginsResponse response_;
};

TEST_F(IntrospectionServiceTest, ClientsFindWhatTheyLookFor) {
  // The filters of dockerd, buildkit and nerdctl.
  ASSERT_TRUE(Plugins({"type==\"io.containerd.snapshotter.v1\""}).ok());
  ASSERT_EQ(response_.plugins_size(), 1);
  EXPECT_EQ(response_.plugins(0).id(), "overlayfs");
  EXPECT_EQ(response_.plugins(0).exports().at("root"), "/root/of/layers");
  ASSERT_TRUE(Plugins({"type==io.containerd.runtime.v1", "type==io.containerd.runtime.v2"}).ok());
  ASSERT_EQ(response_.plugins_size(), 1);
  EXPECT_EQ(response_.plugins(0).platforms(0).os(), "linux");
  ASSERT_TRUE(Plugins({}).ok());
  EXPECT_GT(response_.plugins_size(), 15);
}

TEST_F(IntrospectionServiceTest, EverythingTheContractAsksForIsListed) {
  // Contract 3.10; `restart` is left out on purpose: there is no restart monitor for labels.
  for (const char* wanted :
       {"type==io.containerd.content.v1,id==content", "type==io.containerd.metadata.v1,id==bolt",
        "type==io.containerd.gc.v1,id==scheduler", "type==io.containerd.runtime.v2,id==task",
        "type==io.containerd.transfer.v1,id==local", "type==io.containerd.grpc.v1,id==transfer",
        "type==io.containerd.grpc.v1,id==streaming", "type==io.containerd.grpc.v1,id==sandboxes",
        "id==overlayfs,capabilities~=remap-ids", "id==overlayfs,capabilities~=rebase"}) {
    ASSERT_TRUE(Plugins({wanted}).ok());
    EXPECT_EQ(response_.plugins_size(), 1) << wanted;
  }
  ASSERT_TRUE(Plugins({"id==restart"}).ok());
  EXPECT_EQ(response_.plugins_size(), 0);
}

TEST_F(IntrospectionServiceTest, ABadFilterIsRefused) {
  EXPECT_EQ(Plugins({"type=="}).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(IntrospectionServiceTest, PluginInfoNamesTheUnknown) {
  v1::PluginInfoRequest request;
  request.set_type("io.containerd.runtime.v2");
  request.set_id("task");
  v1::PluginInfoResponse response;
  EXPECT_TRUE(service_.PluginInfo(&context_, &request, &response).ok());
  request.set_id("other");
  EXPECT_EQ(service_.PluginInfo(&context_, &request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(IntrospectionServiceTest, TheServerHasAnIdentity) {
  v1::ServerResponse response;
  ASSERT_TRUE(service_.Server(&context_, nullptr, &response).ok());
  EXPECT_EQ(response.uuid(), "u-u-i-d");
  EXPECT_GT(response.pidns(), 0u);
}

}  // namespace
}  // namespace gantry::gateway
