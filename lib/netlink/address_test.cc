#include "lib/netlink/address.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::netlink {
namespace {

using ::gantry::testing::Fails;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

TEST(AddressTest, ReadsWhatItWrites) {
  for (const char* text : {"0.0.0.0", "10.0.0.1", "172.30.255.254", "255.255.255.255"}) {
    absl::StatusOr<Ipv4Address> address = ParseIpv4(text);
    ASSERT_OK(address);
    EXPECT_EQ(address->ToString(), text);
  }
}

TEST(AddressTest, RefusesWhatOnlyLooksLikeAnAddress) {
  for (const char* text : {"", "1", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", " 1.2.3.4",
                           "1.2.3.4 ", "::1", "0x7f.0.0.1"}) {
    EXPECT_THAT(ParseIpv4(text), Fails(kInvalid, "not an IPv4 address")) << text;
  }
}

TEST(AddressTest, RefusesPrefixesWithAWrongLength) {
  for (const char* text : {"10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8",
                           "10.0.0.0/8/8", "10.0.0.0/ 8", "/8"}) {
    EXPECT_FALSE(ParsePrefix(text).ok()) << text;
  }
}

TEST(AddressTest, PrefixKnowsItsEndsAndItsNeighbours) {
  Ipv4Prefix prefix = *ParsePrefix("172.30.1.7/16");
  EXPECT_EQ(prefix.first().ToString(), "172.30.0.0");
  EXPECT_EQ(prefix.last().ToString(), "172.30.255.255");
  EXPECT_TRUE(prefix.Contains(*ParseIpv4("172.30.255.255")));
  EXPECT_FALSE(prefix.Contains(*ParseIpv4("172.31.0.0")));
  EXPECT_TRUE(prefix.Overlaps(*ParsePrefix("172.16.0.0/12")));
  EXPECT_TRUE(prefix.Overlaps(*ParsePrefix("172.30.200.0/24")));
  EXPECT_FALSE(prefix.Overlaps(*ParsePrefix("172.31.0.0/16")));
  EXPECT_TRUE(prefix.Overlaps(*ParsePrefix("0.0.0.0/0")));
}

TEST(AddressTest, MacAddressesRoundTripAndMulticastIsRefused) {
  EXPECT_EQ(FormatMac(*ParseMac("02:42:AC:1e:00:02")), "02:42:ac:1e:00:02");
  for (const char* text : {"", "02:42:ac:1e:00", "02-42-ac-1e-00-02", "01:00:5e:00:00:01",
                           "00:00:00:00:00:00", "02:42:ac:1e:00:0g"}) {
    EXPECT_THAT(ParseMac(text), Fails(kInvalid, "MAC address")) << text;
  }
}

TEST(AddressTest, MacFollowsTheAddress) {
  EXPECT_EQ(FormatMac(MacFor(*ParseIpv4("172.30.0.2"))), "02:42:ac:1e:00:02");
}

}  // namespace
}  // namespace gantry::netlink
