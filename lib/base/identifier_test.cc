#include "lib/base/identifier.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gantry {
namespace {

using ::testing::HasSubstr;

TEST(IdentifierTest, AcceptsJoinedLettersAndDigits) {
  EXPECT_TRUE(CheckIdentifier("id", "a").ok());
  EXPECT_TRUE(CheckIdentifier("id", "k8s.io_x-1").ok());
  EXPECT_TRUE(CheckIdentifier("id", std::string(76, 'a')).ok());
}

TEST(IdentifierTest, RefusesWhatCouldLeaveAPath) {
  for (const char* bad : {"", ".", "..", "a/b", "-a", "a-", "a..b", "a b", "a\n", "\xc3\xa4"}) {
    EXPECT_EQ(CheckIdentifier("id", bad).code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_FALSE(CheckIdentifier("id", std::string(77, 'a')).ok());
}

TEST(IdentifierTest, ErrorNamesFieldAndEscapesValue) {
  EXPECT_THAT(CheckIdentifier("lease id", "a\n").message(), HasSubstr("lease id 'a\\n'"));
}

TEST(IdentifierTest, KeysArePrintable) {
  EXPECT_TRUE(CheckKey("key", "extract-1-x sha256:abc/d").ok());
  EXPECT_FALSE(CheckKey("key", std::string("a\0b", 3)).ok());
  EXPECT_FALSE(CheckKey("key", "long", 3).ok());
}

TEST(IdentifierTest, LabelsHaveALimit) {
  EXPECT_TRUE(CheckLabel("k", std::string(4095, 'v')).ok());
  EXPECT_FALSE(CheckLabel("k", std::string(4096, 'v')).ok());
  EXPECT_FALSE(CheckLabel("", "v").ok());
}

TEST(IdentifierTest, RandomHexDiffers) {
  EXPECT_EQ(RandomHex(32).size(), 64u);
  EXPECT_NE(RandomHex(32), RandomHex(32));
}

}  // namespace
}  // namespace gantry
