// Terminals, attach, logs and cp: everything that carries bytes.

#include <signal.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "tests/support/pty.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandOptions;
using ::gantry::testing::CommandResult;
using ::gantry::testing::PtyProgram;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class StreamsTest : public testing::SuiteTest {
 protected:
  static absl::StatusOr<PtyProgram> OnTerminal(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), testing::BinDirectory() + "/gantryctl");
    return PtyProgram::Start(std::move(arguments), {"GANTRY_HOST=" + suite_->host()}, 33, 111);
  }
};

TEST_F(StreamsTest, AShellOnATerminalWorks) {
  absl::StatusOr<PtyProgram> shell = OnTerminal({"run", "--rm", "-it", Image(), "sh"});
  ASSERT_OK(shell);
  EXPECT_TRUE(shell->Expect("# ", absl::Seconds(5))) << ::testing::PrintToString(shell->output());
  shell->Type("stty size; tty; echo $((6*7))\n");
  EXPECT_TRUE(shell->Expect("33 111")) << shell->output();
  EXPECT_TRUE(shell->Expect("42")) << shell->output();
  EXPECT_FALSE(shell->IsCooked());
  shell->Resize(44, 122);
  // The new size arrives with SIGWINCH; ask until it is there.
  for (int i = 0; i < 50 && !shell->Expect("44 122", absl::Milliseconds(100)); ++i) {
    shell->Type("stty size\n");
  }
  EXPECT_THAT(shell->output(), HasSubstr("44 122"));
  shell->Type("exit 5\n");
  EXPECT_EQ(shell->Wait()->code, 5);
  EXPECT_TRUE(shell->IsCooked()) << "raw mode must be undone";
}

TEST_F(StreamsTest, DetachKeysLeaveTheContainerRunning) {
  absl::StatusOr<PtyProgram> shell = OnTerminal({"run", "-it", "--name", "kept", Image(), "sh"});
  ASSERT_OK(shell);
  EXPECT_TRUE(shell->Expect("# ", absl::Seconds(5))) << ::testing::PrintToString(shell->output());
  shell->Type("\x10\x11");
  EXPECT_EQ(shell->Wait()->code, 0);
  EXPECT_TRUE(shell->IsCooked());
  EXPECT_EQ(Inspect("kept", "{{.State.Running}}"), "true");

  absl::StatusOr<PtyProgram> again = OnTerminal({"attach", "kept"});
  ASSERT_OK(again);
  again->Type("echo back\n");
  EXPECT_TRUE(again->Expect("back\r\n")) << again->output();
  again->Type("exit 0\n");
  EXPECT_EQ(again->Wait()->code, 0);
}

TEST_F(StreamsTest, ATerminalIsRestoredWhenTheClientIsKilled) {
  absl::StatusOr<PtyProgram> shell =
      OnTerminal({"run", "--rm", "-it", "--name", "cut", Image(), "sh"});
  ASSERT_OK(shell);
  EXPECT_TRUE(shell->Expect("# ", absl::Seconds(5))) << ::testing::PrintToString(shell->output());
  EXPECT_EQ(testing::RunShell("pkill -TERM -f '[g]antryctl run --rm -it --name cut'").code, 0);
  EXPECT_OK(shell->Wait());
  EXPECT_TRUE(shell->IsCooked());
}

TEST_F(StreamsTest, TerminalNeedsATerminal) {
  const CommandResult result = Run({"-it"}, {"sh"});
  EXPECT_NE(result.code, 0);
  EXPECT_THAT(result.err, HasSubstr("the input device is not a TTY"));
}

TEST_F(StreamsTest, CtrlCIsAByteOnATerminalAndASignalWithout) {
  absl::StatusOr<PtyProgram> shell = OnTerminal({"run", "--rm", "-it", Image(), "sh"});
  ASSERT_OK(shell);
  EXPECT_TRUE(shell->Expect("# ", absl::Seconds(5))) << ::testing::PrintToString(shell->output());
  // The word comes from the program: by then the shell has given the terminal's settings back.
  shell->Type("sh -c 'echo running; sleep 600'\n");
  EXPECT_TRUE(shell->Expect("running\r\n"));
  shell->Type("\x03");
  EXPECT_TRUE(shell->Expect("# ", absl::Seconds(5))) << ::testing::PrintToString(shell->output());
  shell->Type("exit\n");
  EXPECT_OK(shell->Wait());
}

TEST_F(StreamsTest, SignalsAreForwarded) {
  CommandOptions options;
  options.environment = {"GANTRY_HOST=" + suite_->host()};
  const CommandResult result = testing::RunShell(
      absl::StrCat(
          testing::BinDirectory(), "/gantryctl run --rm --name sig ", Image(),
          " sh -c 'trap \"echo got; exit 7\" TERM; echo ready; while :; do sleep 0.02; done' > ",
          suite_->root(), "/sig & pid=$!; until grep -q ready ", suite_->root(),
          "/sig; do sleep 0.02; done; kill -TERM $pid; wait $pid; echo $?"),
      options);
  EXPECT_EQ(result.out, "7\n") << result;
}

TEST_F(StreamsTest, AttachSeesNewOutput) {
  const std::string id =
      RunDetached({"-i"}, {"sh", "-c", "while read line; do echo got $line; done; exit 4"});
  CommandOptions options;
  options.input = "a\nb\n";
  const CommandResult result = Ctl({"attach", id}, options);
  EXPECT_EQ(result.out, "got a\ngot b\n") << result;
  EXPECT_EQ(result.code, 4);
}

TEST_F(StreamsTest, LogsShowStreamsTimesAndTails) {
  const std::string id =
      RunDetached({}, {"sh", "-c", "for i in 1 2 3; do echo out$i; echo err$i >&2; done"});
  EXPECT_EQ(Ctl({"wait", id}).code, 0);
  const CommandResult all = Ctl({"logs", id});
  EXPECT_EQ(all.out, "out1\nout2\nout3\n");
  EXPECT_EQ(all.err, "err1\nerr2\nerr3\n");
  const CommandResult tail = Ctl({"logs", "-n", "2", id});
  EXPECT_EQ(Lines(tail.out).size() + Lines(tail.err).size(), 2u) << tail;
  EXPECT_THAT(Lines(Ctl({"logs", "-t", id}).out)[0],
              MatchesRegex("[0-9]{4}-[0-9-]+T[0-9:]+\\.[0-9]{9}Z out1"));
  EXPECT_EQ(Ctl({"logs", "--since", "1h", id}).out, all.out);
  EXPECT_EQ(Ctl({"logs", "--until", "1h", id}).out, "");
}

TEST_F(StreamsTest, LogsFollowUntilTheEnd) {
  const std::string id =
      RunDetached({}, {"sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done"});
  EXPECT_EQ(Ctl({"logs", "-f", id}).out, "1\n2\n3\n4\n5\n");
}

TEST_F(StreamsTest, LogsRotateAndLoseNothingWithinTheirSize) {
  const std::string id = RunDetached(
      {"--log-opt", "max-size=100k", "--log-opt", "max-file=3"},
      {"sh", "-c",
       "for i in $(seq 4000); do echo line $i 0123456789012345678901234567890123456789; done"});
  EXPECT_EQ(Ctl({"wait", id}).code, 0);
  const std::string path = Inspect(id, "{{.LogPath}}");
  const CommandResult files =
      testing::RunShell("ls " + path + "* | wc -l; cat " + path + "* | wc -c");
  EXPECT_EQ(Lines(files.out)[0], "3") << files;
  const std::vector<std::string> lines = Lines(Ctl({"logs", id}).out);
  ASSERT_GT(lines.size(), 1000u);
  EXPECT_THAT(lines.back(), HasSubstr("line 4000 "));
  // Consecutive: whatever is kept has no holes.
  int first = 0;
  ASSERT_EQ(sscanf(lines.front().c_str(), "line %d", &first), 1);
  EXPECT_EQ(lines.size(), static_cast<size_t>(4000 - first + 1));
}

TEST_F(StreamsTest, JsonLogsAreDockers) {
  const std::string id = RunDetached({}, {"sh", "-c", "printf 'a\"\\n\\377'"});
  EXPECT_EQ(Ctl({"wait", id}).code, 0);
  const std::string path = Inspect(id, "{{.LogPath}}");
  absl::StatusOr<std::string> log = sys::ReadFile(path);
  ASSERT_OK(log);
  EXPECT_TRUE(absl::StartsWith(*log, "{\"log\":\"a\\\"\\n\",\"stream\":\"stdout\",\"time\":\""))
      << *log;
}

TEST_F(StreamsTest, CopyBothWays) {
  const std::string id = RunDetached({"--name", "cp"}, {"sleep", "600"});
  const std::string here = suite_->root() + "/cp";
  ASSERT_EQ(testing::RunShell("mkdir -p " + here + "/d/sub && echo hello > " + here +
                              "/d/sub/f && chmod 640 " + here + "/d/sub/f")
                .code,
            0);
  EXPECT_EQ(Ctl({"cp", here + "/d", "cp:/tmp/"}).code, 0);
  EXPECT_EQ(Ctl({"exec", "cp", "cat", "/tmp/d/sub/f"}).out, "hello\n");
  EXPECT_EQ(Ctl({"cp", "cp:/etc/passwd", here + "/passwd"}).code, 0);
  EXPECT_THAT(*sys::ReadFile(here + "/passwd"), HasSubstr("root:x:0:0"));
  EXPECT_EQ(Ctl({"stop", "-t", "0", "cp"}).code, 0);
  EXPECT_EQ(Ctl({"cp", here + "/passwd", "cp:/tmp/while-stopped"}).code, 0);
  const CommandResult tar = Ctl({"cp", "cp:/tmp", "-"});
  EXPECT_EQ(tar.code, 0);
  EXPECT_THAT(tar.out, HasSubstr("while-stopped"));
  const CommandResult missing = Ctl({"cp", "cp:/no/such", here});
  EXPECT_EQ(missing.code, 1);
}

TEST_F(StreamsTest, CopyDoesNotFollowLinksOut) {
  const std::string id =
      RunDetached({"--name", "trap"}, {"sh", "-c", "ln -s /root/../../../../etc /out; sleep 600"});
  EXPECT_TRUE(Eventually("$CTL exec trap ls /out/passwd >/dev/null 2>&1"));
  const std::string here = suite_->root() + "/trap";
  ASSERT_EQ(
      testing::RunShell("mkdir -p " + here + " && echo evil > " + here + "/gantry-escape").code, 0);
  EXPECT_EQ(Ctl({"cp", here + "/gantry-escape", "trap:/out/gantry-escape"}).code, 0);
  EXPECT_FALSE(sys::Exists("/etc/gantry-escape"))
      << "the link must be resolved inside the container";
  EXPECT_EQ(Ctl({"exec", "trap", "cat", "/etc/gantry-escape"}).out, "evil\n");
}

}  // namespace
}  // namespace gantry
