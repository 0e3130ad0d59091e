#include "lib/base/text.h"

#include "gtest/gtest.h"

namespace gantry {
namespace {

TEST(TextTest, EscapesWhatATerminalWouldActOn) {
  EXPECT_EQ(EscapeForTerminal("a\x1b[2J\n"), "a\\x1b[2J\\x0a");
  EXPECT_EQ(EscapeForTerminal("\xff"), "\\xff");
  EXPECT_EQ(EscapeForTerminal("\xc2\x9b"), "\\xc2\\x9b");
}

TEST(TextTest, KeepsPrintableUtf8) {
  EXPECT_EQ(EscapeForTerminal("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
}

TEST(TextTest, PlainTextIsUtf8WithoutControls) {
  EXPECT_TRUE(IsPlainText("a\tb\r\n\xc3\xbc"));
  EXPECT_FALSE(IsPlainText("\xff"));
  EXPECT_FALSE(IsPlainText("\xc3"));
  EXPECT_FALSE(IsPlainText("a\x1b"));
}

TEST(TextTest, SizesLookLikeDockers) {
  EXPECT_EQ(DecimalSize(0), "0B");
  EXPECT_EQ(DecimalSize(1978000), "1.98MB");
  EXPECT_EQ(DecimalSize(142000000), "142MB");
  EXPECT_EQ(BinarySize(327680), "320KiB");
}

TEST(TextTest, DurationsLookLikeDockers) {
  EXPECT_EQ(HumanDuration(absl::Milliseconds(200)), "Less than a second");
  EXPECT_EQ(HumanDuration(absl::Seconds(59)), "59 seconds");
  EXPECT_EQ(HumanDuration(absl::Seconds(90)), "About a minute");
  EXPECT_EQ(HumanDuration(absl::Minutes(61)), "About an hour");
  EXPECT_EQ(HumanDuration(absl::Hours(49)), "2 days");
}

TEST(TextTest, TimesCarryNanoseconds) {
  EXPECT_EQ(FormatRfc3339Nano(absl::UnixEpoch() + absl::Nanoseconds(1)),
            "1970-01-01T00:00:00.000000001Z");
}

}  // namespace
}  // namespace gantry
