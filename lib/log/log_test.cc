#include "lib/log/log.h"

#include "gtest/gtest.h"

namespace gantry::log {
namespace {

TEST(LogTest, TextQuotesWhatHasSpaces) {
  EXPECT_EQ(FormatLine({}, "T", Level::kInfo, "task exited",
                       {{"container", "my web"}, {"status", 137}, {"ok", false}}),
            "T info task exited container=\"my web\" status=137 ok=false\n");
}

TEST(LogTest, JsonIsOneObjectALine) {
  Options options;
  options.format = Format::kJson;
  options.service = "task";
  EXPECT_EQ(FormatLine(options, "T", Level::kError, "a", {{"b", "q\"\n"}}),
            "{\"time\":\"T\",\"level\":\"error\",\"msg\":\"a\",\"service\":\"task\","
            "\"b\":\"q\\\"\\\\x0a\"}\n");
}

TEST(LogTest, LevelsParse) {
  Level level;
  EXPECT_TRUE(ParseLevel("warn", &level).ok());
  EXPECT_EQ(level, Level::kWarning);
  EXPECT_FALSE(ParseLevel("loud", &level).ok());
}

}  // namespace
}  // namespace gantry::log
