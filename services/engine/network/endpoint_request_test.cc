#include "services/engine/network/endpoint_request.h"

#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::network {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;

TEST(CheckConnectTest, RefusesWhatNoNetworkCouldServe) {
  EndpointRequest request{.container_id = "web"};
  EXPECT_OK(CheckConnect(request));
  request.container_id = "../web";
  EXPECT_THAT(CheckConnect(request), Fails(absl::StatusCode::kInvalidArgument, "container_id"));
  request.container_id = "web";
  request.ip = "10.0.0";
  EXPECT_THAT(CheckConnect(request), Fails(absl::StatusCode::kInvalidArgument, "10.0.0"));
  request.ip = "";
  request.mac = "zz";
  EXPECT_THAT(CheckConnect(request), Fails(absl::StatusCode::kInvalidArgument, "MAC"));
  request.mac = "02:00:00:00:00:01";
  EXPECT_OK(CheckConnect(request));
  request.mode = Mode::kNone;
  EXPECT_THAT(CheckConnect(request), Fails(absl::StatusCode::kInvalidArgument, "'none'"));
}

TEST(ParseModeTest, KnowsTheModesAndNamesThemForOthers) {
  EXPECT_EQ(*ParseMode(""), Mode::kBridge);
  EXPECT_EQ(*ParseMode("default"), Mode::kBridge);
  EXPECT_EQ(*ParseMode("none"), Mode::kNone);
  EXPECT_EQ(*ParseMode("host"), Mode::kHost);
  EXPECT_THAT(ParseMode("backend"), Fails(absl::StatusCode::kInvalidArgument, "container:ID"));
}

TEST(PortsToPublishTest, PublishAllAddsWhatIsExposedAndNotPublishedYet) {
  EndpointRequest request;
  request.ports = {{Protocol::kTcp, 80, "", 8080}};
  request.exposed = {{Protocol::kTcp, 80}, {Protocol::kUdp, 80}, {Protocol::kTcp, 443}};
  EXPECT_EQ(PortsToPublish(request)->size(), 1u);
  request.publish_all = true;
  std::vector<PortRequest> ports = *PortsToPublish(request);
  ASSERT_EQ(ports.size(), 3u);
  EXPECT_EQ(ports[1].protocol, Protocol::kUdp);
  EXPECT_EQ(ports[2].container_port, 443);
  EXPECT_EQ(ports[2].host_port, 0);
}

TEST(PortsToPublishTest, ImpossiblePortsAreRefused) {
  EndpointRequest request;
  request.ports = {{Protocol::kTcp, 0, "", 8080}};
  EXPECT_THAT(PortsToPublish(request), HasCode(absl::StatusCode::kInvalidArgument));
  request.ports = {{Protocol::kTcp, 80, "", 8080, 8000}};
  EXPECT_THAT(PortsToPublish(request), Fails(absl::StatusCode::kInvalidArgument, "backwards"));
}

}  // namespace
}  // namespace gantry::network
