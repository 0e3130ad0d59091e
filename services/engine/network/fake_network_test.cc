#include "services/engine/network/testing/fake_network.h"

#include <memory>

#include "services/engine/network/testing/network_suite.h"

namespace gantry::network {
namespace {

struct FakeMaker {
  bool Available() const { return true; }
  std::unique_ptr<Network> Make() {
    return std::make_unique<FakeNetwork>(std::string(kSuiteSubnet));
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Fake, NetworkSuite, FakeMaker);

TEST(FakeNetworkTest, AdoptKeepsWhatLivesAndReportsWhatIsLost) {
  FakeNetwork before("10.231.0.0/28");
  ASSERT_OK(before.Adopt({}));
  EndpointRequest request{.container_id = "web"};
  request.ports = {{Protocol::kTcp, 80, "", 8080}};
  absl::StatusOr<Endpoint> web = before.Connect(request);
  ASSERT_OK(web);
  absl::StatusOr<Endpoint> db = before.Connect({.container_id = "db"});
  ASSERT_OK(db);

  FakeNetwork after("10.231.0.0/28");
  after.Lose("db");
  absl::StatusOr<AdoptReport> report = after.Adopt({*web, *db});

  ASSERT_OK(report);
  ASSERT_EQ(report->lost.size(), 1u);
  EXPECT_EQ(report->lost[0].container_id, "db");
  EXPECT_EQ(after.Connected(), (std::vector<std::string>{"web"}));
  request.container_id = "other";
  EXPECT_THAT(after.Connect(request), testing::Fails(absl::StatusCode::kAlreadyExists, "'web'"));
}

TEST(FakeNetworkTest, FaultsHappenOnceAndChangeNothing) {
  FakeNetwork network;
  ASSERT_OK(network.Adopt({}));
  network.FailNextConnect(absl::UnavailableError("no"));
  EXPECT_THAT(network.Connect({.container_id = "a"}),
              testing::HasCode(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(network.Connected().empty());
  EXPECT_OK(network.Connect({.container_id = "a"}));
}

}  // namespace
}  // namespace gantry::network
