// What every Network does, as tests: run on the fake and on the real one. A fixture hands in a
// fresh network of subnet 10.231.0.0/28, on which Adopt has not run.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"
#include "services/engine/network/network.h"

namespace gantry::network {

inline constexpr absl::string_view kSuiteSubnet = "10.231.0.0/28";
inline constexpr int kSuiteAddresses = 13;

// `Maker` has `std::unique_ptr<Network> Make()`, and lives as long as the networks it makes.
template <typename Maker>
class NetworkSuite : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!maker_.Available()) GTEST_SKIP() << "needs root";
    network_ = maker_.Make();
    ASSERT_NE(network_, nullptr);
  }

  void TearDown() override {
    if (network_ == nullptr) return;
    for (const Endpoint& endpoint : network_->Info().connected) {
      EXPECT_OK(network_->Release(endpoint.container_id));
    }
  }

  void Begin() { ASSERT_OK(network_->Adopt({})); }

  static EndpointRequest Bridge(const std::string& id) { return {.container_id = id}; }

  Maker maker_;
  std::unique_ptr<Network> network_;
};

TYPED_TEST_SUITE_P(NetworkSuite);

TYPED_TEST_P(NetworkSuite, NothingConnectsBeforeAdopt) {
  EXPECT_THAT(this->network_->Connect(this->Bridge("web")),
              testing::HasCode(absl::StatusCode::kFailedPrecondition));
}

TYPED_TEST_P(NetworkSuite, AnEndpointSaysWhatItIs) {
  this->Begin();
  absl::StatusOr<Endpoint> web = this->network_->Connect(this->Bridge("web"));
  ASSERT_OK(web);
  EXPECT_EQ(web->container_id, "web");
  EXPECT_EQ(web->endpoint_id.size(), 64u);
  EXPECT_EQ(web->network_id.size(), 64u);
  EXPECT_THAT(web->ip, ::testing::StartsWith("10.231.0."));
  EXPECT_EQ(web->prefix_length, 28);
  EXPECT_EQ(web->gateway, "10.231.0.1");
  EXPECT_THAT(web->mac, ::testing::StartsWith("02:42:0a:e7:00:"));
  EXPECT_FALSE(web->netns_path.empty());
  EXPECT_FALSE(web->bridge.empty());
  EXPECT_EQ(this->network_->Info().endpoints, 1u);
}

TYPED_TEST_P(NetworkSuite, AContainerConnectsOnceAndReleasesAsOftenAsItLikes) {
  this->Begin();
  ASSERT_OK(this->network_->Connect(this->Bridge("web")));
  EXPECT_THAT(this->network_->Connect(this->Bridge("web")),
              testing::Fails(absl::StatusCode::kAlreadyExists, "web"));
  EXPECT_OK(this->network_->Release("web"));
  EXPECT_OK(this->network_->Release("web"));
  EXPECT_OK(this->network_->Connect(this->Bridge("web")));
}

TYPED_TEST_P(NetworkSuite, AddressesAreUniqueRunOutAndComeBack) {
  this->Begin();
  std::set<std::string> addresses;
  for (int i = 0; i < kSuiteAddresses; ++i) {
    absl::StatusOr<Endpoint> endpoint = this->network_->Connect(this->Bridge(absl::StrCat("c", i)));
    ASSERT_OK(endpoint);
    addresses.insert(endpoint->ip);
  }
  EXPECT_EQ(addresses.size(), static_cast<size_t>(kSuiteAddresses));
  EXPECT_THAT(this->network_->Connect(this->Bridge("late")),
              testing::Fails(absl::StatusCode::kResourceExhausted, "10.231.0.0/28"));
  ASSERT_OK(this->network_->Release("c3"));
  EXPECT_OK(this->network_->Connect(this->Bridge("late")));
}

TYPED_TEST_P(NetworkSuite, WantedAddressesAreGivenWhenFree) {
  this->Begin();
  EndpointRequest request = this->Bridge("a");
  request.ip = "10.231.0.9";
  request.mac = "02:00:00:00:00:09";
  absl::StatusOr<Endpoint> endpoint = this->network_->Connect(request);
  ASSERT_OK(endpoint);
  EXPECT_EQ(endpoint->ip, "10.231.0.9");
  EXPECT_EQ(endpoint->mac, "02:00:00:00:00:09");
  request.container_id = "b";
  EXPECT_THAT(this->network_->Connect(request),
              testing::Fails(absl::StatusCode::kAlreadyExists, "10.231.0.9"));
  request.ip = "10.99.0.9";
  EXPECT_THAT(this->network_->Connect(request),
              testing::Fails(absl::StatusCode::kInvalidArgument, "10.99.0.9"));
}

TYPED_TEST_P(NetworkSuite, APortConflictNamesTheHolderAndLeavesNothing) {
  this->Begin();
  EndpointRequest request = this->Bridge("first");
  request.ports = {{Protocol::kTcp, 80, "127.0.0.1", 48080}};
  absl::StatusOr<Endpoint> endpoint = this->network_->Connect(request);
  ASSERT_OK(endpoint);
  EXPECT_EQ(endpoint->ports, (std::vector<Port>{{Protocol::kTcp, 80, "127.0.0.1", 48080}}));

  request.container_id = "second";
  EXPECT_THAT(this->network_->Connect(request),
              testing::Fails(absl::StatusCode::kAlreadyExists, "by container 'first'"));
  EXPECT_EQ(this->network_->Info().endpoints, 1u);

  ASSERT_OK(this->network_->Release("first"));
  EXPECT_OK(this->network_->Connect(request));
}

TYPED_TEST_P(NetworkSuite, PublishAllPublishesWhatIsExposed) {
  this->Begin();
  EndpointRequest request = this->Bridge("web");
  request.exposed = {{Protocol::kTcp, 80}, {Protocol::kUdp, 53}};
  request.publish_all = true;
  absl::StatusOr<Endpoint> endpoint = this->network_->Connect(request);
  ASSERT_OK(endpoint);
  ASSERT_EQ(endpoint->ports.size(), 2u);
  EXPECT_EQ(endpoint->ports[0].container_port, 80);
  EXPECT_GE(endpoint->ports[0].host_port, 49153);
  EXPECT_EQ(endpoint->ports[1].protocol, Protocol::kUdp);
}

TYPED_TEST_P(NetworkSuite, NoneAndHostHaveNoAddressAndNoPorts) {
  this->Begin();
  EndpointRequest request = this->Bridge("quiet");
  request.mode = Mode::kNone;
  request.ports = {{Protocol::kTcp, 80, "", 48081}};
  absl::StatusOr<Endpoint> none = this->network_->Connect(request);
  ASSERT_OK(none);
  EXPECT_EQ(none->ip, "");
  EXPECT_TRUE(none->ports.empty());
  EXPECT_FALSE(none->netns_path.empty());

  request.container_id = "open";
  request.mode = Mode::kHost;
  absl::StatusOr<Endpoint> host = this->network_->Connect(request);
  ASSERT_OK(host);
  EXPECT_EQ(host->netns_path, "");
  EXPECT_EQ(host->ip, "");
}

REGISTER_TYPED_TEST_SUITE_P(NetworkSuite, NothingConnectsBeforeAdopt, AnEndpointSaysWhatItIs,
                            AContainerConnectsOnceAndReleasesAsOftenAsItLikes,
                            AddressesAreUniqueRunOutAndComeBack, WantedAddressesAreGivenWhenFree,
                            APortConflictNamesTheHolderAndLeavesNothing,
                            PublishAllPublishesWhatIsExposed, NoneAndHostHaveNoAddressAndNoPorts);

}  // namespace gantry::network
