#include "services/engine/network/address_pool.h"

#include <set>

#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::network {
namespace {

using ::gantry::testing::Fails;

AddressPool MakePool(const char* subnet) {
  return *AddressPool::Create(*netlink::ParsePrefix(subnet));
}

TEST(AddressPoolTest, GivesEveryAddressOnceAndThenSaysItIsFull) {
  AddressPool pool = MakePool("10.9.0.0/29");
  std::set<std::string> taken;
  for (int i = 0; i < 5; ++i) taken.insert(pool.TakeNext()->ToString());
  EXPECT_EQ(taken,
            (std::set<std::string>{"10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6"}));
  EXPECT_EQ(pool.used(), pool.capacity());
  EXPECT_THAT(pool.TakeNext(), Fails(absl::StatusCode::kResourceExhausted, "10.9.0.0/29"));
}

TEST(AddressPoolTest, AnAddressGivenBackIsTheLastToComeAgain) {
  AddressPool pool = MakePool("10.9.0.0/29");
  netlink::Ipv4Address first = *pool.TakeNext();
  pool.Give(first);
  for (int i = 0; i < 4; ++i) EXPECT_NE(*pool.TakeNext(), first);
  EXPECT_EQ(*pool.TakeNext(), first);
}

TEST(AddressPoolTest, AWantedAddressIsGivenOnce) {
  AddressPool pool = MakePool("10.9.0.0/24");
  netlink::Ipv4Address wanted = *netlink::ParseIpv4("10.9.0.77");
  EXPECT_OK(pool.Take(wanted));
  EXPECT_THAT(pool.Take(wanted), Fails(absl::StatusCode::kAlreadyExists, "10.9.0.77"));
  pool.Give(wanted);
  pool.Give(wanted);
  EXPECT_EQ(pool.used(), 0u);
  EXPECT_OK(pool.Take(wanted));
}

TEST(AddressPoolTest, NetworkGatewayBroadcastAndStrangersAreRefused) {
  AddressPool pool = MakePool("10.9.0.0/24");
  for (const char* address : {"10.9.0.0", "10.9.0.1", "10.9.0.255", "10.9.1.2", "127.0.0.1"}) {
    EXPECT_THAT(pool.Take(*netlink::ParseIpv4(address)),
                Fails(absl::StatusCode::kInvalidArgument, address));
  }
}

TEST(AddressPoolTest, SubnetsThatCannotWorkAreRefused) {
  for (const char* subnet : {"10.0.0.0/8", "10.9.0.0/30", "10.9.0.1/24"}) {
    EXPECT_THAT(AddressPool::Create(*netlink::ParsePrefix(subnet)),
                Fails(absl::StatusCode::kInvalidArgument, subnet));
  }
}

}  // namespace
}  // namespace gantry::network
