// gantryctl itself, as a person calls it, against a suite that only pretends.

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/sys/file.h"
#include "lib/testing/status_matchers.h"
#include "tests/ctl/fake_suite.h"
#include "tests/support/command.h"
#include "tests/support/pty.h"
#include "tests/support/suite.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandOptions;
using ::gantry::testing::CommandResult;
using ::gantry::testing::FakeSuite;
using ::gantry::testing::PtyProgram;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

std::string Program() { return testing::BinDirectory() + "/gantryctl"; }

class CommandsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<FakeSuite>> suite = FakeSuite::Start();
    ASSERT_OK(suite);
    suite_ = *std::move(suite);
  }
  CommandResult Ctl(std::vector<std::string> arguments, CommandOptions options = {}) {
    arguments.insert(arguments.begin(), Program());
    options.environment.push_back("GANTRY_HOST=" + suite_->host());
    options.environment.push_back("FROM_CALLER=yes");
    return testing::RunCommand(arguments, options);
  }
  CommandResult Ctl(std::vector<std::string> arguments, const std::string& input) {
    CommandOptions options;
    options.input = input;
    return Ctl(std::move(arguments), options);
  }
  CommandResult Shell(const std::string& script) {
    CommandOptions options;
    options.environment = {"GANTRY_HOST=" + suite_->host(), "CTL=" + Program(),
                           "DIR=" + suite_->directory()};
    return testing::RunShell(script, options);
  }
  absl::StatusOr<PtyProgram> OnTerminal(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), Program());
    return PtyProgram::Start(std::move(arguments), {"GANTRY_HOST=" + suite_->host()}, 33, 111);
  }
  std::string RunDetached(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"run", "-d"});
    const CommandResult result = Ctl(arguments);
    EXPECT_EQ(result.code, 0) << result;
    return result.out.substr(0, 64);
  }
  std::string In(const std::string& name) const { return suite_->directory() + "/" + name; }

  std::unique_ptr<FakeSuite> suite_;
};

TEST_F(CommandsTest, RunKeepsStreamsApartAndPassesTheExitCode) {
  const CommandResult out = Ctl({"run", "--rm", "busybox", "echo", "a", "-b"});
  EXPECT_EQ(out.code, 0);
  EXPECT_EQ(out.out, "a -b\n");
  EXPECT_EQ(out.err, "");
  const CommandResult err = Ctl({"run", "busybox", "err", "wrong"});
  EXPECT_EQ(err.out, "");
  EXPECT_EQ(err.err, "wrong\n");
  EXPECT_EQ(Ctl({"run", "busybox", "exit", "9"}).code, 9);
  EXPECT_EQ(Ctl({"ps", "-aq", "--filter", "name=x"}).code, 0);
}

TEST_F(CommandsTest, RunSendsTheFlags) {
  const CommandResult result =
      Ctl({"run", "-d", "-e", "FROM_CALLER", "-e", "A=1", "-p", "80:81/udp", "--privileged", "-v",
           "/a:/b:ro", "busybox", "echo", "-d"});
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_THAT(result.out, MatchesRegex("[0-9a-f]{64}\n"));
  EXPECT_EQ(result.err, "WARNING: everything is allowed\n");
  const engine::v1::CreateContainerRequest request = suite_->last_create();
  EXPECT_TRUE(request.start());
  EXPECT_FALSE(request.config().attach());
  EXPECT_THAT(request.config().env(), ElementsAre("FROM_CALLER=yes", "A=1"));
  EXPECT_THAT(request.config().command(), ElementsAre("echo", "-d"));
  EXPECT_EQ(request.config().ports(0).container_port(), 81u);
  EXPECT_TRUE(request.config().mounts(0).read_only());
}

TEST_F(CommandsTest, RunForwardsInput) {
  EXPECT_EQ(Ctl({"run", "--rm", "-i", "busybox", "cat"}, "one\ntwo\n").out, "ready\none\ntwo\n");
  const std::string large(3 << 20, 'x');
  const CommandResult result = Ctl({"run", "--rm", "-i", "busybox", "cat"}, large);
  EXPECT_EQ(result.out.size(), large.size() + 6);
}

TEST_F(CommandsTest, RunKeepsUpWithMuchOutput) {
  EXPECT_EQ(Shell("$CTL run --rm busybox flood 5000000 | wc -c").out, "5000000\n");
  EXPECT_EQ(Shell("$CTL run busybox flood 5000000 | head -c 10; echo").out, "ffffffffff\n");
}

TEST_F(CommandsTest, RunExitCodes) {
  const CommandResult missing = Ctl({"run", "busybox", "no-such-program"});
  EXPECT_EQ(missing.code, 127);
  EXPECT_THAT(missing.err, HasSubstr("gantryctl: cannot run \"busybox\": exec 'no-such-program': "
                                     "executable file not found in $PATH\n"));
  EXPECT_EQ(Ctl({"run", "busybox", "/etc/passwd"}).code, 126);
  EXPECT_EQ(Ctl({"run", "no/such", "true"}).code, 125);
  EXPECT_EQ(Ctl({"run", "--frob", "busybox"}).code, 125);
  EXPECT_EQ(Ctl({"run"}).code, 125);
  EXPECT_EQ(Ctl({"run", "-m", "lots", "busybox"}).code, 125);
  EXPECT_EQ(Ctl({"run", "-it", "busybox", "cat"}).code, 125);
  EXPECT_EQ(Ctl({"run", "-d", "-a", "stdout", "busybox", "cat"}).code, 125);
  EXPECT_EQ(Ctl({"run", "busybox", "vanish"}).code, 42) << "the engine knows the code";
}

TEST_F(CommandsTest, RunPullsWhatIsMissing) {
  EXPECT_EQ(Ctl({"run", "--pull", "never", "fresh", "echo", "x"}).code, 125);
  const CommandResult result = Ctl({"run", "fresh", "echo", "x"});
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_EQ(result.out, "x\n") << "progress belongs on stderr";
  EXPECT_THAT(result.err, StartsWith("Unable to find image 'fresh:latest' locally\n"));
  EXPECT_THAT(result.err, HasSubstr("aaaaaaaaaaaa: Pull complete\n"));
  EXPECT_EQ(Ctl({"run", "-q", "--pull", "always", "fresh", "echo", "x"}).err, "");
  EXPECT_THAT(suite_->pulled(), ElementsAre("fresh", "fresh"));
}

TEST_F(CommandsTest, RunTimingAndCidfile) {
  const CommandResult result =
      Ctl({"run", "--rm", "--timing", "--cidfile", In("cid"), "busybox", "true"});
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.err, MatchesRegex("STEP +TIME\n"
                                       "client +[0-9.]+ ms\n"
                                       "request +[0-9.]+ ms\n"
                                       "  snapshot +1.500 ms\n"
                                       "  shim +1.500 ms\n"
                                       "    spec +1.500 ms\n"
                                       "  start +1.500 ms\n"
                                       "session +[0-9.]+ ms\n"
                                       "removal +[0-9.]+ ms\n"
                                       "total +[0-9.]+ ms\n"));
  const absl::StatusOr<std::string> id = sys::ReadFile(In("cid"));
  ASSERT_OK(id);
  EXPECT_EQ(id->size(), 64u);
  EXPECT_EQ(Ctl({"run", "--cidfile", In("cid"), "busybox", "true"}).code, 125) << "it is there";
  EXPECT_EQ(Ctl({"run", "--cidfile", In("new"), "busybox", "nothing"}).code, 127);
  EXPECT_FALSE(sys::Exists(In("new"))) << "nothing was made";
}

TEST_F(CommandsTest, SignalsAreForwarded) {
  const CommandResult result = Shell(
      "$CTL run --name s busybox hang > $DIR/out & pid=$!; "
      "until grep -q ready $DIR/out; do sleep 0.01; done; kill -USR1 $pid; wait $pid; echo $?");
  EXPECT_EQ(result.out, "138\n") << result;
  EXPECT_THAT(suite_->signals(), ElementsAre("10"));
}

TEST_F(CommandsTest, WithoutProxySignalsEndTheClient) {
  const CommandResult result = Shell(
      "$CTL run --sig-proxy=false busybox hang > $DIR/out & pid=$!; "
      "until grep -q ready $DIR/out; do sleep 0.01; done; kill -TERM $pid; wait $pid; echo $?");
  EXPECT_EQ(result.out, "143\n") << result;
  EXPECT_TRUE(suite_->signals().empty());
}

TEST_F(CommandsTest, ATerminalIsRawFollowsTheWindowAndIsRestored) {
  absl::StatusOr<PtyProgram> shell = OnTerminal({"run", "-it", "busybox", "size"});
  ASSERT_OK(shell);
  ASSERT_TRUE(shell->Expect("ready"));
  EXPECT_FALSE(shell->IsCooked());
  EXPECT_EQ(suite_->last_create().tty_rows(), 33u);
  EXPECT_THAT(suite_->windows(), ElementsAre("111x33"));
  shell->Resize(44, 122);
  EXPECT_TRUE(shell->Expect("122x44")) << shell->output();
  shell->Type("\x03");  // A byte, not a signal.
  shell->Type("q");
  EXPECT_EQ(shell->Wait()->code, 7);
  EXPECT_TRUE(shell->IsCooked());
  EXPECT_TRUE(suite_->signals().empty());
}

TEST_F(CommandsTest, DetachKeysLeave) {
  absl::StatusOr<PtyProgram> shell = OnTerminal({"run", "-it", "--name", "kept", "busybox", "cat"});
  ASSERT_OK(shell);
  ASSERT_TRUE(shell->Expect("ready"));
  shell->Type("abc\x10");
  ASSERT_TRUE(shell->Expect("abc"));
  shell->Type("\x11");
  EXPECT_EQ(shell->Wait()->code, 0);
  EXPECT_TRUE(shell->IsCooked());
  EXPECT_EQ(Ctl({"inspect", "-f", "{{.State.Running}}", "kept"}).out, "true\n");
  absl::StatusOr<PtyProgram> again = OnTerminal({"attach", "--detach-keys", "z", "kept"});
  ASSERT_OK(again);
  ASSERT_TRUE(again->Expect("ready"));
  again->Type("z");
  EXPECT_EQ(again->Wait()->code, 0);
}

TEST_F(CommandsTest, ASignalOnATerminalRestoresIt) {
  absl::StatusOr<PtyProgram> shell =
      OnTerminal({"run", "-it", "--label", "cut-" + suite_->directory(), "busybox", "cat"});
  ASSERT_OK(shell);
  ASSERT_TRUE(shell->Expect("ready"));
  ASSERT_FALSE(shell->IsCooked());
  EXPECT_EQ(Shell("pkill -TERM -f '[c]ut-'$DIR").code, 0);
  EXPECT_EQ(shell->Wait()->code, 143);
  EXPECT_TRUE(shell->IsCooked());
}

TEST_F(CommandsTest, ExecRunsInTheContainer) {
  RunDetached({"--name", "web", "busybox", "hang"});
  EXPECT_EQ(Ctl({"exec", "web", "echo", "-x"}).out, "-x\n");
  EXPECT_EQ(Ctl({"exec", "web", "exit", "5"}).code, 5);
  EXPECT_EQ(Ctl({"exec", "-i", "web", "cat"}, "in").out, "ready\nin");
  EXPECT_EQ(Ctl({"exec", "-d", "web", "hang"}).code, 0);
  EXPECT_EQ(Ctl({"exec", "web", "nothing"}).code, 127);
  EXPECT_EQ(Ctl({"exec", "nobody", "true"}).code, 1);
  EXPECT_EQ(Ctl({"exec", "web", "vanish"}).code, 42);
  EXPECT_EQ(Ctl({"stop", "web"}).out, "web\n");
  const CommandResult stopped = Ctl({"exec", "web", "true"});
  EXPECT_EQ(stopped.code, 1);
  EXPECT_THAT(stopped.err, HasSubstr("not running"));
}

TEST_F(CommandsTest, CreateAndStartAttached) {
  const CommandResult created = Ctl({"create", "--name", "job", "busybox", "exit", "3"});
  EXPECT_THAT(created.out, MatchesRegex("[0-9a-f]{64}\n"));
  EXPECT_FALSE(suite_->last_create().start());
  EXPECT_EQ(Ctl({"start", "-a", "job"}).code, 3);
  EXPECT_EQ(Ctl({"start", "job"}).out, "job\n");
  EXPECT_EQ(Ctl({"start", "-a", "job", "other"}).code, 1);
}

TEST_F(CommandsTest, SeveralNamesAndPartialFailure) {
  RunDetached({"--name", "a", "busybox", "hang"});
  const CommandResult result = Ctl({"stop", "nobody", "a"});
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.out, "a\n");
  EXPECT_EQ(result.err,
            "gantryctl: cannot stop \"nobody\": No such container: nobody\n"
            "hint: `gantryctl ps -a` lists all containers\n");
  EXPECT_EQ(Ctl({"wait", "a"}).out, "0\n");
  EXPECT_EQ(Ctl({"rm", "a"}).out, "a\n");
  EXPECT_EQ(Ctl({"rm", "a"}).code, 1);
  EXPECT_EQ(Ctl({"rm", "-f", "a"}).code, 0);
}

TEST_F(CommandsTest, RemovingARunningContainerNamesTheWayOut) {
  RunDetached({"--name", "a", "busybox", "hang"});
  const CommandResult result = Ctl({"rm", "a"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("hint: stop the container first, or remove it with -f"));
  EXPECT_EQ(Ctl({"rm", "-f", "a"}).code, 0);
}

TEST_F(CommandsTest, DuplicateNamesAreSaid) {
  RunDetached({"--name", "twin", "busybox", "hang"});
  const CommandResult again = Ctl({"run", "--name", "twin", "busybox", "true"});
  EXPECT_EQ(again.code, 125);
  EXPECT_THAT(again.err, HasSubstr("is already in use by container"));
}

TEST_F(CommandsTest, PsPrintsDockersTable) {
  const std::string id = RunDetached({"--name", "web", "-p", "8080:80", "-l", "tier=front",
                                      "busybox", "echo", "a rather long text"});
  EXPECT_EQ(
      Ctl({"ps"}).out,
      absl::StrCat("CONTAINER ID   IMAGE            COMMAND                  CREATED         "
                   "STATUS         PORTS                  NAMES\n",
                   id.substr(0, 12),
                   "   busybox:latest   \"echo a rather long …\"   3 minutes ago   Up 3 minutes "
                   "  0.0.0.0:8080->80/tcp   web\n"));
  EXPECT_EQ(Ctl({"ps", "-q"}).out, id.substr(0, 12) + "\n");
  EXPECT_EQ(Ctl({"ps", "-q", "--no-trunc"}).out, id + "\n");
  EXPECT_EQ(Ctl({"container", "ls", "--format", "table {{.Names}}\\t{{.Label \"tier\"}}"}).out,
            "NAMES     LABEL\nweb       front\n");
  EXPECT_THAT(Ctl({"ps", "--format", "json"}).out,
              AllOf(HasSubstr("\"Labels\":\"tier=front\""), HasSubstr("\"State\":\"running\"")));
  EXPECT_EQ(Ctl({"ps", "--filter", "colour=red"}).code, 1);
  EXPECT_EQ(Ctl({"ps", "--format", "{{.Nope}}"}).code, 1);
  EXPECT_EQ(Ctl({"port", "web"}).out, "80/tcp -> 0.0.0.0:8080\n");
  EXPECT_EQ(Ctl({"port", "web", "80"}).out, "0.0.0.0:8080\n");
  EXPECT_EQ(Ctl({"port", "web", "81"}).code, 1);
  EXPECT_EQ(Ctl({"top", "web"}).out, "PID       CMD\n1         sh \\x1b[31m\n") << "escaped";
}

TEST_F(CommandsTest, InspectFindsContainersImagesAndVolumes) {
  const std::string id = RunDetached({"--name", "web", "busybox", "hang"});
  EXPECT_EQ(Ctl({"inspect", "-f", "{{.Id}} {{.Name}}", id.substr(0, 8)}).out, id + " /web\n");
  EXPECT_THAT(Ctl({"inspect", "web"}).out, StartsWith("[\n    {\n        \"Id\": \"" + id));
  EXPECT_EQ(Ctl({"inspect", "-f", "{{.Os}}{{.RepoTags}}", "busybox"}).out,
            "[127.0.0.1:5000/busybox:1 busybox:latest]\n");
  EXPECT_EQ(Ctl({"volume", "create", "-l", "a=b", "data"}).out, "data\n");
  EXPECT_EQ(Ctl({"inspect", "-f", "{{.Name}} {{.Labels.a}}", "data"}).out, "data b\n");
  const CommandResult unknown = Ctl({"inspect", "nothing"});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_EQ(unknown.out, "[]\n");
  EXPECT_THAT(unknown.err, HasSubstr("No such object: nothing"));
  EXPECT_EQ(Ctl({"inspect", "--type", "image", "web"}).code, 1);
}

TEST_F(CommandsTest, ImagesTable) {
  EXPECT_EQ(Ctl({"images"}).out,
            "REPOSITORY               TAG       IMAGE ID       CREATED       SIZE\n"
            "127.0.0.1:5000/busybox   1         cccccccccccc   2 hours ago   1.98MB\n"
            "busybox                  latest    cccccccccccc   2 hours ago   1.98MB\n"
            "<none>                   <none>    dddddddddddd   3 days ago    0B\n");
  EXPECT_EQ(Ctl({"images", "-q", "--filter", "dangling=true"}).out, "dddddddddddd\n");
  EXPECT_EQ(
      Ctl({"images", "--filter", "reference=busy*", "--format", "{{.Repository}}:{{.Tag}}"}).out,
      "busybox:latest\n");
  EXPECT_EQ(Ctl({"images", "--filter", "since=busybox", "-q"}).out, "");
  EXPECT_EQ(Ctl({"images", "--filter", "before=busybox", "-q"}).out, "dddddddddddd\n");
  EXPECT_EQ(Ctl({"images", "--filter", "colour=red"}).code, 1);
  EXPECT_THAT(Ctl({"image", "ls", "--no-trunc", "-q"}).out, HasSubstr("sha256:cccc"));
  EXPECT_THAT(Ctl({"images", "--digests"}).out, HasSubstr("DIGEST"));
}

TEST_F(CommandsTest, PullTagRemoveLoad) {
  const CommandResult pull = Ctl({"pull", "fresh"});
  EXPECT_EQ(pull.out, absl::StrCat("latest: Pulling from library/fresh\n"
                                   "aaaaaaaaaaaa: Downloading\n"
                                   "aaaaaaaaaaaa: Extracting\n"
                                   "aaaaaaaaaaaa: Pull complete\n"
                                   "Digest: sha256:",
                                   std::string(64, 'b'),
                                   "\nStatus: Downloaded newer image for fresh:latest\n"
                                   "docker.io/library/fresh:latest\n"));
  EXPECT_EQ(Ctl({"pull", "-q", "fresh"}).out, "docker.io/library/fresh:latest\n");
  const CommandResult missing = Ctl({"pull", "no/such"});
  EXPECT_EQ(missing.code, 1);
  EXPECT_THAT(missing.err, HasSubstr("cannot pull \"no/such\""));
  EXPECT_EQ(Ctl({"tag", "busybox", "mine:v1"}).code, 0);
  EXPECT_EQ(Ctl({"rmi", "busybox"}).out,
            absl::StrCat("Untagged: busybox:latest\nDeleted: sha256:", std::string(64, 'c'), "\n"));
  EXPECT_EQ(Ctl({"rmi", "nothing"}).code, 1);
  const std::string archive(3 << 20, 'a');
  ASSERT_OK(sys::WriteFileAtomically(In("image.tar"), archive));
  EXPECT_EQ(Ctl({"load", "-i", In("image.tar")}).out, "Loaded image: loaded:docker\n");
  EXPECT_EQ(suite_->received().size(), archive.size());
  EXPECT_EQ(Ctl({"load"}, "from stdin").code, 0);
  EXPECT_EQ(suite_->received(), "from stdin");
}

TEST_F(CommandsTest, ProgressIsRedrawnOnATerminal) {
  absl::StatusOr<PtyProgram> pull = OnTerminal({"pull", "fresh"});
  ASSERT_OK(pull);
  EXPECT_EQ(pull->Wait()->code, 0);
  EXPECT_TRUE(pull->Expect("Status: Downloaded")) << pull->output();
  EXPECT_THAT(pull->output(), HasSubstr("\x1b[1A\r\x1b[2Kaaaaaaaaaaaa: Pull complete"));
}

TEST_F(CommandsTest, LogsKeepStreamsApart) {
  const CommandResult plain = Ctl({"logs", "x"});
  EXPECT_EQ(plain.out, "out1\nlong line\n");
  EXPECT_EQ(plain.err, "err1\n");
  EXPECT_EQ(Ctl({"logs", "-t", "x"}).out,
            "2023-11-14T22:13:20.000000000Z out1\n2023-11-14T22:13:22.000000000Z long line\n");
  EXPECT_EQ(Ctl({"logs", "-n", "many", "x"}).code, 1);
  const CommandResult cut = Shell("$CTL logs endless | head -c 5; echo");
  EXPECT_EQ(cut.out, "yyyyy\n");
  EXPECT_EQ(cut.err, "");
}

TEST_F(CommandsTest, CopiesBothWays) {
  ASSERT_OK(sys::MakeDirectories(In("src/sub")));
  ASSERT_OK(sys::WriteFileAtomically(In("src/sub/f"), "hello"));
  const CommandResult put = Ctl({"cp", In("src"), "web:/tmp"});
  EXPECT_EQ(put.code, 0) << put;
  EXPECT_EQ(put.err, "Successfully copied 5B to web:/tmp\n");
  EXPECT_EQ(suite_->received_path(), "web:/tmp");
  ASSERT_OK(sys::WriteFileAtomically(In("got.tar"), suite_->received()));
  EXPECT_EQ(Shell("tar -tf $DIR/got.tar").out, "src/\nsrc/sub/\nsrc/sub/f\n");
  // The fake hands the same archive out again.
  ASSERT_OK(sys::MakeDirectories(In("into")));
  EXPECT_EQ(Ctl({"cp", "-q", "web:/tmp", In("into")}).code, 0);
  EXPECT_EQ(*sys::ReadFile(In("into/tmp/sub/f")), "hello") << "under the name that was asked for";
  EXPECT_EQ(Ctl({"cp", "web:/tmp", In("fresh")}).code, 0);
  EXPECT_EQ(*sys::ReadFile(In("fresh/sub/f")), "hello") << "a missing target is the new name";
  EXPECT_EQ(Ctl({"cp", "web:/tmp/.", In("into")}).code, 0);
  EXPECT_EQ(*sys::ReadFile(In("into/sub/f")), "hello");
  EXPECT_EQ(Shell("$CTL cp web:/tmp - | tar -t | wc -l").out, "3\n");
  EXPECT_EQ(Shell("tar -C $DIR -c src | $CTL cp - web:/tmp").code, 0);
  EXPECT_EQ(Ctl({"cp", In("src/sub/f"), "web:/tmp/new"}).code, 0);
  EXPECT_EQ(suite_->received_path(), "web:/tmp");
  ASSERT_OK(sys::WriteFileAtomically(In("got.tar"), suite_->received()));
  EXPECT_EQ(Shell("tar -tf $DIR/got.tar").out, "new\n");
  EXPECT_EQ(Ctl({"cp", In("nothing"), "web:/tmp"}).code, 1);
  EXPECT_EQ(Ctl({"cp", "web:/no/such", In("into")}).code, 1);
  EXPECT_EQ(Ctl({"cp", "a:/x", "b:/y"}).code, 1);
  EXPECT_EQ(Ctl({"cp", "/a", "/b"}).code, 1);
}

TEST_F(CommandsTest, EventsInDockersWords) {
  EXPECT_EQ(Ctl({"events", "--since", "10m", "--until", "0s"}).out,
            "2023-11-14T22:13:20.000000000Z container create c1 (image=busybox:latest, name=web)\n"
            "2023-11-14T22:13:21.000000000Z container start c1 (image=busybox:latest, name=web)\n"
            "2023-11-14T22:13:23.000000000Z container exec_start: sh -c true c1 "
            "(image=busybox:latest, name=web)\n"
            "2023-11-14T22:13:24.000000000Z container die c1 "
            "(exitCode=3, image=busybox:latest, name=web)\n");
  EXPECT_EQ(Ctl({"events", "--since", "10m", "--until", "0s", "--filter", "event=die", "--format",
                 "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.exitCode}}"})
                .out,
            "die c1 3\n");
  EXPECT_EQ(Ctl({"events", "--until", "0s", "--filter", "container=other"}).out, "");
  EXPECT_EQ(Ctl({"events", "--until", "0s", "--filter", "container=web", "--filter",
                 "event=exec_start", "--format", "{{.Status}} {{.ID}} {{.From}} {{.Scope}}"})
                .out,
            "exec_start: sh -c true c1 busybox:latest local\n");
  EXPECT_EQ(Ctl({"events", "--until", "0s", "--filter", "colour=red"}).code, 1);
  EXPECT_EQ(Ctl({"events"}).code, 1) << "the journal broke off";
}

TEST_F(CommandsTest, VersionInfoAndOverhead) {
  const CommandResult version = Ctl({"version"});
  EXPECT_EQ(version.code, 0) << version;
  for (const char* process : {"gantry-engine", "gantry-metadata", "gantry-gateway", "1.2.3"}) {
    EXPECT_THAT(version.out, HasSubstr(process));
  }
  EXPECT_EQ(Ctl({"version", "-f", "{{len .Server.Components}}"}).out, "6\n");
  EXPECT_THAT(Ctl({"info"}).out,
              AllOf(HasSubstr(" Containers: 3\n  Running: 1\n"),
                    HasSubstr(" Storage Driver: overlay2\n  Backing Filesystem: extfs\n"),
                    HasSubstr(" Total Memory: 8GiB\n")));
  EXPECT_EQ(Ctl({"info", "-f", "{{.Containers}} {{.CgroupVersion}}"}).out, "3 1\n");
  EXPECT_THAT(Ctl({"system", "overhead"}).out, HasSubstr("total"));
  EXPECT_THAT(Ctl({"system", "metrics", "task"}).out, HasSubstr("gantry_task 1"));
}

TEST_F(CommandsTest, AuditCountsLeaks) {
  const CommandResult clean = Ctl({"system", "audit"});
  EXPECT_EQ(clean.code, 0);
  EXPECT_EQ(clean.out, "0 leaks (12 objects checked)\n");
  suite_->AddFinding("task", "/run/x");
  const CommandResult leaks = Ctl({"system", "audit"});
  EXPECT_EQ(leaks.code, 1);
  EXPECT_EQ(leaks.out,
            "task: mount '/run/x' belongs to no container; unmount it\n"
            "1 leak (12 objects checked)\n");
  EXPECT_THAT(Ctl({"system", "audit", "--format", "json"}).out,
              StartsWith("{\"Leaks\":1,\"Findings\":[{\"Process\":\"task\",\"Kind\":\"mount\""));
  suite_->StopProcess("image");
  const CommandResult blind = Ctl({"system", "audit"});
  EXPECT_EQ(blind.code, 1);
  EXPECT_THAT(blind.err, HasSubstr("cannot audit gantry-image"));
}

TEST_F(CommandsTest, Failpoints) {
  EXPECT_THAT(Ctl({"system", "failpoints"}).out, HasSubstr("engine engine.step\n"));
  EXPECT_EQ(Ctl({"system", "failpoints", "ls", "task"}).out, "task task.step\n");
  EXPECT_EQ(Ctl({"system", "failpoints", "set", "task", "task.step=error@2"}).code, 0);
  EXPECT_EQ(Ctl({"system", "failpoints", "set", "task", "nope=error"}).code, 1);
  EXPECT_EQ(Ctl({"system", "failpoints", "set", "nobody", "x=error"}).code, 1);
}

TEST_F(CommandsTest, Volumes) {
  EXPECT_EQ(Ctl({"volume", "create", "data"}).out, "data\n");
  EXPECT_EQ(Ctl({"volume", "ls"}).out, "DRIVER    VOLUME NAME\nlocal     data\n");
  EXPECT_EQ(Ctl({"volume", "rm", "data"}).out, "data\n");
  EXPECT_EQ(Ctl({"volume", "rm", "data"}).code, 1);
  EXPECT_EQ(Ctl({"volume", "rm", "-f", "data"}).code, 0);
  EXPECT_EQ(Ctl({"volume", "ls", "-q"}).out, "");
}

TEST_F(CommandsTest, AServiceThatIsDownIsNamed) {
  suite_->StopProcess("image");
  const CommandResult images = Ctl({"images"});
  EXPECT_EQ(images.code, 1);
  EXPECT_EQ(
      images.err,
      absl::StrCat("gantryctl: cannot list images: Cannot connect to the Gantry image at unix://",
                   suite_->directory(), "/image.sock; is it running?\n",
                   "hint: start the suite with deploy/quickstart, or name another one with "
                   "GANTRY_HOST or -H\n"));
  EXPECT_EQ(Ctl({"ps"}).code, 0) << "the others still work";
  EXPECT_EQ(Ctl({"-H", "unix:///no/such", "ps"}).code, 1);
  EXPECT_EQ(Ctl({"-H", "unix:///no/such", "run", "busybox"}).code, 125);
}

TEST_F(CommandsTest, HelpAsksNobody) {
  CommandOptions options;
  options.environment = {"GANTRY_HOST=unix:///no/such"};
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{},
                                             {"help"},
                                             {"--help"},
                                             {"-h"},
                                             {"help", "run"},
                                             {"run", "--help"},
                                             {"ps", "-h"},
                                             {"volume"},
                                             {"volume", "--help"},
                                             {"image", "ls", "--help"},
                                             {"version", "--client"},
                                             {"--version"}}) {
    std::vector<std::string> argv = words;
    argv.insert(argv.begin(), Program());
    const CommandResult result = testing::RunCommand(argv, options);
    EXPECT_EQ(result.code, 0) << result;
    EXPECT_FALSE(result.out.empty());
    EXPECT_EQ(result.err, "");
  }
}

TEST_F(CommandsTest, WrongWordsAreGuessed) {
  const CommandResult wrong = Ctl({"imges"});
  EXPECT_EQ(wrong.code, 1);
  EXPECT_EQ(wrong.err, "gantryctl: 'imges' is not a gantryctl command\nhint: gantryctl images\n");
  EXPECT_THAT(Ctl({"run", "--detahc", "x"}).err, HasSubstr("did you mean --detach?"));
  EXPECT_THAT(Ctl({"ps", "images"}).err, HasSubstr("hint: gantryctl images"));
  EXPECT_EQ(Ctl({"--frob"}).code, 125);
}

TEST_F(CommandsTest, ErrorsAsJson) {
  CommandOptions options;
  options.environment = {"GANTRY_ERROR_FORMAT=json"};
  EXPECT_THAT(Ctl({"stop", "nobody"}, options).err,
              MatchesRegex("\\{\"code\":\"NOT_FOUND\",\"message\":\"cannot stop "
                           "\\\\\"nobody\\\\\": No such container: "
                           "nobody\",\"hint\":\"`gantryctl ps -a` lists all containers\","
                           "\"request\":\"[0-9a-f]{16}\"\\}\n"));
  EXPECT_THAT(Ctl({"-D", "stop", "nobody"}).err,
              ContainsRegex("code: NOT_FOUND request=[0-9a-f]{16}\n"));
}

}  // namespace
}  // namespace gantry
