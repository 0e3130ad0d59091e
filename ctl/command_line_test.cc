#include "ctl/command_line.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "ctl/commands/commands.h"
#include "ctl/completion.h"
#include "ctl/manual.h"
#include "lib/testing/status_matchers.h"

namespace gantry::ctl {
namespace {

using ::gantry::testing::Fails;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr FlagSpec kFlags[] = {
    {"detach", 'd', FlagKind::kSwitch, "", "Detach"},
    {"hostname", 'h', FlagKind::kText, "string", "Host name"},
    {"interactive", 'i', FlagKind::kSwitch, "", "Stdin"},
    {"net", 0, FlagKind::kText, "string", "", "network"},
    {"network", 0, FlagKind::kText, "string", "Network"},
    {"publish", 'p', FlagKind::kList, "list", "Ports"},
    {"tty", 't', FlagKind::kSwitch, "", "Terminal"},
};
int DoNothing(Context&, const Arguments&) { return 0; }
constexpr CommandSpec kRun = {"run", "IMAGE", "Run", kFlags, 1, -1, true, "", DoNothing};
constexpr CommandSpec kList = {"list", "", "List",   absl::Span<const FlagSpec>(kFlags, 1), 0, 2,
                               false,  "", DoNothing};

absl::StatusOr<Arguments> Parse(const CommandSpec& command, absl::string_view line) {
  const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
  return ParseCommandLine(command, words);
}

TEST(CommandLineTest, FlagsStopAtTheImage) {
  const auto arguments = Parse(kRun, "-d busybox ls -d --network host");
  ASSERT_OK(arguments);
  EXPECT_TRUE(arguments->Is("detach"));
  EXPECT_FALSE(arguments->Has("network"));
  EXPECT_THAT(arguments->positional(), ElementsAre("busybox", "ls", "-d", "--network", "host"));
}

TEST(CommandLineTest, FlagsStandAnywhereOtherwise) {
  const auto arguments = Parse(kList, "a -d b");
  ASSERT_OK(arguments);
  EXPECT_TRUE(arguments->Is("detach"));
  EXPECT_THAT(arguments->positional(), ElementsAre("a", "b"));
  EXPECT_THAT(Parse(kList, "-- -d")->positional(), ElementsAre("-d"));
}

TEST(CommandLineTest, ShortSwitchesCombineAndEndInAValue) {
  for (const char* line : {"-dit -p 80:80 x", "-ditp 80:80 x", "-ditp80:80 x", "-ditp=80:80 x",
                           "-d -i -t --publish=80:80 x", "-dit --publish 80:80 x"}) {
    const auto arguments = Parse(kRun, line);
    ASSERT_OK(arguments) << line;
    EXPECT_TRUE(arguments->Is("detach") && arguments->Is("interactive") && arguments->Is("tty"));
    EXPECT_THAT(arguments->List("publish"), ElementsAre("80:80")) << line;
  }
}

TEST(CommandLineTest, ListsAddAndTextsReplace) {
  const auto arguments = Parse(kRun, "-p 1 -p 2 --network a --net b x");
  ASSERT_OK(arguments);
  EXPECT_THAT(arguments->List("publish"), ElementsAre("1", "2"));
  EXPECT_EQ(arguments->Text("network"), "b") << "an alias sets what it stands for";
}

TEST(CommandLineTest, SwitchesTakeTruthOnlyWithAnEqualsSign) {
  EXPECT_FALSE(Parse(kRun, "--detach=false x")->Is("detach"));
  EXPECT_FALSE(Parse(kRun, "-d=0 x")->Is("detach"));
  EXPECT_TRUE(Parse(kRun, "--detach=TRUE x")->Is("detach"));
  EXPECT_THAT(Parse(kRun, "--detach false x")->positional(), ElementsAre("false", "x"));
  EXPECT_THAT(Parse(kRun, "--detach=maybe x"),
              Fails(absl::StatusCode::kInvalidArgument, "'maybe' of the switch --detach"));
}

TEST(CommandLineTest, UnknownFlagsNameTheNearest) {
  EXPECT_THAT(Parse(kRun, "--detahc x"), Fails(absl::StatusCode::kInvalidArgument,
                                               "unknown flag: --detahc; did you mean --detach?"));
  EXPECT_THAT(Parse(kRun, "--zzzzzz x"),
              Fails(absl::StatusCode::kInvalidArgument, "unknown flag: --zzzzzz"));
  EXPECT_THAT(Parse(kRun, "-dz x"),
              Fails(absl::StatusCode::kInvalidArgument, "unknown shorthand flag: 'z' in -dz"));
  EXPECT_THAT(Parse(kRun, "-p"),
              Fails(absl::StatusCode::kInvalidArgument, "flag needs an argument: -p"));
}

TEST(CommandLineTest, HelpIsNoErrorAndCountsNothing) {
  EXPECT_TRUE(Parse(kRun, "--help")->help_wanted());
  EXPECT_TRUE(Parse(kList, "-h")->help_wanted());
  EXPECT_EQ(Parse(kRun, "-h web x")->Text("hostname"), "web") << "run's -h is the host name";
  EXPECT_FALSE(Parse(kRun, "x --help")->help_wanted()) << "that is the program's";
}

TEST(CommandLineTest, ArgumentsAreCounted) {
  EXPECT_THAT(Parse(kRun, "-d"), Fails(absl::StatusCode::kInvalidArgument,
                                       "'gantryctl run' requires at least 1 argument"));
  EXPECT_THAT(Parse(kList, "a b c"), Fails(absl::StatusCode::kInvalidArgument, "0 to 2 arguments"));
}

TEST(NearestWordTest, ForgivesLittle) {
  EXPECT_EQ(NearestWord("imges", {"images", "inspect"}), "images");
  EXPECT_EQ(NearestWord("sotp", {"stop", "start"}), "stop") << "swapped letters are one mistake";
  EXPECT_EQ(NearestWord("xyz", {"images", "ps"}), "");
  EXPECT_EQ(NearestWord(std::string(1000, 'a'), {"ps"}), "");
}

TEST(HelpTest, EveryCommandHasTextAndKnowsItsFlags) {
  for (const CommandSpec* command : AllCommands()) {
    if (absl::StartsWith(command->name, "__")) continue;  // For scripts, not for people.
    // What the parser knows, the manual page and the completion know.
    const std::string page = ManualPage(*command);
    for (const FlagSpec& flag : command->flags) {
      if (flag.help[0] == '\0') continue;
      EXPECT_THAT(page, HasSubstr(absl::StrCat(
                            "\\-\\-", absl::StrReplaceAll(flag.name, {{"-", "\\-"}}), "\\fR")));
      std::vector<std::string> words = absl::StrSplit(command->name, ' ');
      words.push_back(absl::StrCat("--", flag.name));
      EXPECT_THAT(Candidates(words, [](absl::string_view) { return std::vector<std::string>(); }),
                  ::testing::Contains(absl::StrCat("--", flag.name)));
    }
    const std::string help = HelpText(*command);
    EXPECT_THAT(help, HasSubstr("Usage:  gantryctl "));
    EXPECT_NE(command->summary[0], '\0') << command->name;
    std::set<std::string> names;
    std::set<char> letters;
    for (const FlagSpec& flag : command->flags) {
      EXPECT_TRUE(names.insert(flag.name).second) << command->name << " --" << flag.name;
      if (flag.letter != 0) {
        EXPECT_TRUE(letters.insert(flag.letter).second) << command->name << " -" << flag.letter;
      }
      if (flag.help[0] != '\0') {
        EXPECT_THAT(help, HasSubstr(std::string("--") + flag.name));
      }
      EXPECT_EQ(flag.kind == FlagKind::kSwitch, flag.value_name[0] == '\0') << flag.name;
    }
  }
}

TEST(FindCommandTest, KnowsFlatAndGroupedForms) {
  const auto find = [](absl::string_view line) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    const FoundCommand found = FindCommand(words);
    return absl::StrCat(found.command != nullptr ? found.command->name : "-", " ", found.words);
  };
  EXPECT_EQ(find("ps"), "ps 1");
  EXPECT_EQ(find("container ls -a"), "ps 2");
  EXPECT_EQ(find("image rm x"), "rmi 2");
  EXPECT_EQ(find("image inspect x"), "image inspect 2");
  EXPECT_EQ(find("volume rm x"), "volume rm 2");
  EXPECT_EQ(find("system failpoints set engine a=error"), "system failpoints set 3");
  EXPECT_EQ(find("system failpoints"), "system failpoints ls 2");
  EXPECT_EQ(find("run ps"), "run 1");
  EXPECT_EQ(find("volume"), "- 0");
  EXPECT_EQ(find("imges"), "- 0");
}

TEST(MeantCommandTest, GuessesWhatWasMeant) {
  const auto meant = [](absl::string_view line) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    return MeantCommand(words);
  };
  EXPECT_EQ(meant("imges"), "images");
  EXPECT_EQ(meant("volume crate"), "volume create");
  EXPECT_EQ(meant("ls"), "ps");
  EXPECT_EQ(meant("ps images"), "images");
  EXPECT_EQ(meant("frobnicate"), "");
}

TEST(OverviewTest, ListsCommandsAndGroups) {
  const std::string text = OverviewText();
  EXPECT_LT(text.find("Common Commands"), text.find("Management Commands"));
  for (const char* word : {"run ", "volume ", "cp ", "GANTRY_HOST"}) {
    EXPECT_THAT(text, HasSubstr(word));
  }
  EXPECT_THAT(GroupText("volume"), AllOf(HasSubstr("create"), HasSubstr("inspect")));
  EXPECT_THAT(GroupText("nothing"), IsEmpty());
}

}  // namespace
}  // namespace gantry::ctl
