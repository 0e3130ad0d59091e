#include "lib/base/crc32c.h"

#include <string>

#include "gtest/gtest.h"

namespace gantry {
namespace {

TEST(Crc32cTest, MatchesTheKnownVectors) {
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4.
}

}  // namespace
}  // namespace gantry
