#include "runtime/cli/options.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::runtime {
namespace {

using ::gantry::testing::Fails;
using ::testing::ElementsAre;
using Words = std::vector<std::string>;

const std::vector<OptionSpec>& Options() {
  static const auto* options =
      new std::vector<OptionSpec>{{"bundle", 'b', OptionSpec::kValue},
                                  {"detach", 'd', OptionSpec::kFlag},
                                  {"tty", 't', OptionSpec::kFlag},
                                  {"env", 'e', OptionSpec::kValue},
                                  {"rootless", 0, OptionSpec::kOptionalValue}};
  return *options;
}

TEST(OptionsTest, ValuesMayBeJoinedOrSeparate) {
  for (const Words& words :
       {Words{"--bundle", "/b", "id"}, Words{"--bundle=/b", "id"}, Words{"-b", "/b", "id"},
        Words{"-b=/b", "id"}, Words{"-bundle", "/b", "id"}, Words{"id", "--bundle", "/b"},
        Words{"-b/b", "id"}}) {
    auto arguments = ParseArguments(Options(), words);
    ASSERT_OK(arguments);
    EXPECT_EQ(arguments->Value("bundle"), "/b") << words[0];
    EXPECT_THAT(arguments->operands(), ElementsAre("id"));
  }
}

TEST(OptionsTest, LettersMayBeTogether) {
  auto arguments = ParseArguments(Options(), {"-dt", "id"});
  ASSERT_OK(arguments);
  EXPECT_TRUE(arguments->IsSet("detach"));
  EXPECT_TRUE(arguments->IsSet("tty"));
}

TEST(OptionsTest, FlagsMayBeTurnedOff) {
  auto arguments = ParseArguments(Options(), {"--tty=false", "--detach=true"});
  ASSERT_OK(arguments);
  EXPECT_TRUE(arguments->Has("tty"));
  EXPECT_FALSE(arguments->IsSet("tty"));
  EXPECT_TRUE(arguments->IsSet("detach"));
  EXPECT_FALSE(ParseArguments(Options(), {"--tty=maybe"}).ok());
}

TEST(OptionsTest, AnOptionalValueNeedsTheEqualsSign) {
  auto bare = ParseArguments(Options(), {"--rootless", "id"});
  ASSERT_OK(bare);
  EXPECT_EQ(bare->Value("rootless"), "true");
  EXPECT_THAT(bare->operands(), ElementsAre("id"));
  EXPECT_EQ(ParseArguments(Options(), {"--rootless=auto"})->Value("rootless"), "auto");
}

TEST(OptionsTest, WordsAfterTheIdBelongToTheProgram) {
  auto arguments = ParseArguments(Options(), {"-d", "id", "ls", "-l", "--bundle", "--"}, 1);
  ASSERT_OK(arguments);
  EXPECT_THAT(arguments->operands(), ElementsAre("id", "ls", "-l", "--bundle", "--"));
  EXPECT_FALSE(arguments->Has("bundle"));
}

TEST(OptionsTest, GlobalOptionsEndAtTheCommand) {
  size_t consumed = 0;
  auto arguments =
      ParseArguments(Options(), {"-b", "/b", "run", "-d", "id"}, kAllOperands, &consumed);
  ASSERT_OK(arguments);
  EXPECT_EQ(consumed, 2u);
  EXPECT_FALSE(arguments->Has("detach"));
}

TEST(OptionsTest, RepeatedValuesAreKeptInOrder) {
  auto arguments = ParseArguments(Options(), {"-e", "A=1", "--env=B=2", "id"});
  ASSERT_OK(arguments);
  EXPECT_THAT(arguments->Values("env"), ElementsAre("A=1", "B=2"));
}

TEST(OptionsTest, MistakesAreNamed) {
  EXPECT_THAT(ParseArguments(Options(), {"--nope"}),
              Fails(absl::StatusCode::kInvalidArgument, "--nope"));
  EXPECT_THAT(ParseArguments(Options(), {"id", "--bundle"}),
              Fails(absl::StatusCode::kInvalidArgument, "a value is missing"));
  EXPECT_THAT(ParseArguments(Options(), {"-dx"}), Fails(absl::StatusCode::kInvalidArgument, "-dx"));
}

TEST(OptionsTest, ADashAloneIsAnOperand) {
  auto arguments = ParseArguments(Options(), {"-", "--", "-d"});
  ASSERT_OK(arguments);
  EXPECT_THAT(arguments->operands(), ElementsAre("-", "-d"));
}

}  // namespace
}  // namespace gantry::runtime
