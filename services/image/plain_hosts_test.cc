#include "services/image/plain_hosts.h"

#include "gtest/gtest.h"

namespace gantry::image {
namespace {

TEST(PlainHostsTest, OnlyLoopbackAndConfiguredHostsMayBePlain) {
  const PlainHosts plain({"10.0.0.0/8", "registry.test:5000", "fd00::/8"});

  for (const char* host : {"127.0.0.1:5000", "127.9.9.9", "localhost:1", "[::1]:5000", "10.1.2.3:5",
                           "registry.test:5000", "[fd00::1]:5000"}) {
    EXPECT_TRUE(plain.Allows(host)) << host;
  }
  for (const char* host : {"11.0.0.1", "registry.test", "registry.test:5001", "128.0.0.1",
                           "localhost.example.com", "127.0.0.1.example.com", "[fe00::1]:5000"}) {
    EXPECT_FALSE(plain.Allows(host)) << host;
  }
}

}  // namespace
}  // namespace gantry::image
