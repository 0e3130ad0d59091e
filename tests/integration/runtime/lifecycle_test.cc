// The commands of a container's life: what they do, print and answer.
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/sys/file.h"
#include "lib/sys/socket.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class RuntimeLifecycleTest : public RuntimeTest {};

TEST_F(RuntimeLifecycleTest, RunPassesOutputAndExitCode) {
  CommandResult result = RunScript("echo out; echo err >&2; exit 7");
  EXPECT_EQ(result.code, 7) << result;
  EXPECT_EQ(result.out, "out\n");
  EXPECT_EQ(result.err, "err\n");
  EXPECT_THAT(CgroupDirectories(), IsEmpty());
  EXPECT_FALSE(sys::Exists(path("state/c")));
}

TEST_F(RuntimeLifecycleTest, ASignalIsAnExitCodeAbove128) {
  spec_.process->args = {"/bin/sh", "-c", "sh -c 'kill -9 $$'; exit $?"};
  WriteConfig();
  EXPECT_EQ(Runtime({"run", "--bundle", path("bundle"), "c"}).code, 137);
}

TEST_F(RuntimeLifecycleTest, GoesThroughAllStates) {
  spec_.process->args = {"/bin/sleep", "1000"};
  ASSERT_EQ(Create("c", "--pid-file " + path("pid")).code, 0) << Output();
  EXPECT_EQ(StateOf("c", "status"), "created");
  EXPECT_EQ(StateOf("c", "bundle"), path("bundle"));
  EXPECT_EQ(*sys::ReadFile(path("pid")), absl::StrCat(PidOf("c"))) << "no newline after it";

  EXPECT_EQ(Runtime({"start", "c"}).code, 0);
  EXPECT_EQ(StateOf("c", "status"), "running");
  CommandResult again = Runtime({"start", "c"});
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.err, HasSubstr("cannot start an already running container"));
  CommandResult taken = Create("c");
  EXPECT_EQ(taken.code, 1);
  EXPECT_THAT(Output(), HasSubstr("container with given ID already exists"));
  CommandResult refused = Runtime({"delete", "c"});
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("cannot delete container c that is not stopped: running"));

  EXPECT_EQ(Runtime({"pause", "c"}).code, 0);
  EXPECT_EQ(StateOf("c", "status"), "paused");
  EXPECT_EQ(Runtime({"resume", "c"}).code, 0);
  EXPECT_EQ(StateOf("c", "status"), "running");

  EXPECT_EQ(Runtime({"kill", "c", "SIGKILL"}).code, 0);
  ASSERT_TRUE(Eventually([&] { return StateOf("c", "status") == "stopped"; }));
  EXPECT_EQ(PidOf("c"), 0);
  CommandResult dead = Runtime({"kill", "c", "9"});
  EXPECT_EQ(dead.code, 1);
  EXPECT_THAT(dead.err, HasSubstr("container not running"));
  EXPECT_EQ(Runtime({"delete", "c"}).code, 0);
  CommandResult gone = Runtime({"state", "c"});
  EXPECT_EQ(gone.code, 1);
  EXPECT_THAT(gone.err, HasSubstr("does not exist"));
  EXPECT_EQ(Runtime({"delete", "--force", "c"}).code, 0);
  EXPECT_THAT(CgroupDirectories(), IsEmpty());
}

TEST_F(RuntimeLifecycleTest, OptionsMayFollowTheIdAndHaveOneDash) {
  spec_.process->args = {"/bin/sleep", "1000"};
  WriteConfig();
  CommandResult result = RunShell(absl::StrCat(program_, " --root=", path("state"),
                                               " create c -bundle=", path("bundle"), " --pid-file ",
                                               path("pid"), " </dev/null >/dev/null 2>&1"));
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(Runtime({"kill", "--all", "c", "KILL"}).code, 0);
}

TEST_F(RuntimeLifecycleTest, AMissingProgramIsFoundOutByCreate) {
  spec_.process->args = {"no-such-program"};
  EXPECT_EQ(Create("c").code, 1);
  EXPECT_THAT(Output(), HasSubstr("exec: \"no-such-program\": executable file not found in $PATH"));
  spec_.process->args = {"/no/such"};
  EXPECT_EQ(Create("c").code, 1);
  EXPECT_THAT(Output(), HasSubstr("no such file or directory"));
  spec_.process->args = {"/etc"};
  EXPECT_EQ(Create("c").code, 1);
  EXPECT_THAT(Output(), HasSubstr("is a directory"));
  ASSERT_OK(sys::WriteFileAtomically(rootfs("/plain"), "x", 0644));
  spec_.process->args = {"/plain"};
  EXPECT_EQ(Create("c").code, 1);
  EXPECT_THAT(Output(), HasSubstr("permission denied"));
  EXPECT_FALSE(sys::Exists(path("state/c")));
  EXPECT_THAT(CgroupDirectories(), IsEmpty());
}

TEST_F(RuntimeLifecycleTest, AWrongDocumentChangesNothing) {
  spec_.process->args = {"/bin/true"};
  spec_.process->rlimits = {{.type = "RLIMIT_BOGUS", .soft = 1, .hard = 1}};
  EXPECT_EQ(Create("c").code, 1);
  EXPECT_THAT(Output(), HasSubstr("process.rlimits[0].type"));
  EXPECT_FALSE(sys::Exists(path("state")));
}

TEST_F(RuntimeLifecycleTest, TheJsonLogHoldsExactlyOneError) {
  CommandResult result = RunCommand({program_, "--root", path("state"), "--log", path("log.json"),
                                     "--log-format", "json", "start", "nobody"});
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.err, "container 'nobody' does not exist\n");
  auto log = sys::ReadFile(path("log.json"));
  ASSERT_OK(log);
  auto document = json::Document::Parse(*log);
  ASSERT_OK(document) << "one object, as podman parses it";
  std::string level, message;
  ASSERT_OK(document->root().Required("level", &level));
  ASSERT_OK(document->root().Required("msg", &message));
  EXPECT_EQ(level, "error");
  EXPECT_EQ(message, "container 'nobody' does not exist");
}

TEST_F(RuntimeLifecycleTest, RefusesIdsThatArePaths) {
  for (const char* id : {"../x", "a/b", ".hidden", "", "a b"}) {
    CommandResult result = Runtime({"state", id});
    EXPECT_EQ(result.code, 1);
    EXPECT_THAT(result.err, HasSubstr("invalid container id format")) << id;
  }
}

TEST_F(RuntimeLifecycleTest, AFailedCreationSparesWhoSharesTheCgroup) {
  StartScript("c", "sleep 1000");
  spec_.process->args = {"no-such-program"};
  EXPECT_EQ(Create("d").code, 1);
  EXPECT_EQ(StateOf("c", "status"), "running");
}

TEST_F(RuntimeLifecycleTest, ClosedStandardDescriptorsAreNull) {
  spec_.process->args = {"/bin/sh", "-c", "readlink /proc/self/fd/0"};
  WriteConfig();
  CommandResult result = RunShell(absl::StrCat(program_, " --root ", path("state"),
                                               " run --bundle ", path("bundle"), " c <&- 2>&-"));
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_EQ(result.out, "/dev/null\n");
}

TEST_F(RuntimeLifecycleTest, ListsContainers) {
  spec_.process->args = {"/bin/sleep", "1000"};
  EXPECT_EQ(Runtime({"list", "--format=json"}).out, "[]\n");
  ASSERT_EQ(Create("c").code, 0) << Output();
  EXPECT_EQ(Runtime({"list", "-q"}).out, "c\n");
  EXPECT_THAT(Runtime({"list"}).out, HasSubstr("created"));
  auto list = json::Document::Parse(Runtime({"list", "--format", "json"}).out);
  ASSERT_OK(list);
  ASSERT_EQ(list->root().size(), 1u);
}

TEST_F(RuntimeLifecycleTest, DeletesByRegularExpression) {
  spec_.process->args = {"/bin/sleep", "1000"};
  ASSERT_EQ(Create("web-1").code, 0) << Output();
  EXPECT_EQ(Runtime({"delete", "--regex", "^db-"}).code, 0);
  EXPECT_EQ(Runtime({"list", "-q"}).out, "web-1\n");
  EXPECT_EQ(Runtime({"delete", "--force", "--regex", "^web-[0-9]+$"}).code, 0);
  EXPECT_EQ(Runtime({"list", "-q"}).out, "");
  EXPECT_EQ(Runtime({"delete", "--regex", "("}).code, 1);
}

TEST_F(RuntimeLifecycleTest, ListsProcessesAndStatistics) {
  StartScript("c", "sleep 1000 & sleep 1000; true");
  ASSERT_TRUE(Eventually([&] {
    auto pids = json::Document::Parse(Runtime({"ps", "--format", "json", "c"}).out);
    return pids.ok() && pids->root().size() == 3;
  }));
  auto stats = json::Document::Parse(Runtime({"events", "--stats", "c"}).out);
  ASSERT_OK(stats);
  int64_t pids = 0;
  ASSERT_OK(stats->root().Find("data")->Find("pids")->Required("current", &pids));
  EXPECT_EQ(pids, 3);
}

TEST_F(RuntimeLifecycleTest, FeaturesNamesWhatCallersLookFor) {
  auto features = json::Document::Parse(Runtime({"features"}).out);
  ASSERT_OK(features);
  std::string min, max;
  ASSERT_OK(features->root().Required("ociVersionMin", &min));
  ASSERT_OK(features->root().Required("ociVersionMax", &max));
  std::vector<std::string> options;
  ASSERT_OK(features->root().Required("mountOptions", &options));
  EXPECT_THAT(options, ::testing::Contains("rro"));
}

TEST_F(RuntimeLifecycleTest, WritesAnExampleThatRuns) {
  ASSERT_EQ(Runtime({"spec", "--bundle", path("bundle")}).code, 0);
  auto bytes = sys::ReadFile(path("bundle/config.json"));
  ASSERT_OK(bytes);
  auto spec = oci::ParseSpec(*bytes);
  ASSERT_OK(spec);
  EXPECT_NE(Runtime({"spec", "--bundle", path("bundle")}).code, 0) << "never overwrites";
  spec_ = *spec;
  spec_.process->terminal = false;
  EXPECT_EQ(RunScript("exit 3").code, 3);
}

TEST_F(RuntimeLifecycleTest, UpdatesLimits) {
  spec_.linux_.resources->pids_limit = 50;
  StartScript("c", "sleep 1000");
  EXPECT_EQ(Runtime({"update", "--pids-limit", "30", "c"}).code, 0);
  auto limit = sys::ReadFile(absl::StrCat("/sys/fs/cgroup/pids", cgroup_, "/leaf/pids.max"));
  EXPECT_EQ(limit.value_or("30\n"), "30\n");
  CommandResult piped =
      Runtime({"update", "--resources=-", "c"}, {.input = R"({"pids":{"limit":20}})"});
  EXPECT_EQ(piped.code, 0) << piped;
  limit = sys::ReadFile(absl::StrCat("/sys/fs/cgroup/pids", cgroup_, "/leaf/pids.max"));
  EXPECT_EQ(limit.value_or("20\n"), "20\n");
  EXPECT_EQ(Runtime({"update", "--resources=-", "c"}, {.input = "{} x"}).code, 1);
}

TEST_F(RuntimeLifecycleTest, HandsTheTerminalToTheConsoleSocket) {
  spec_.process->terminal = true;
  spec_.process->console_size = oci::ConsoleSize{.height = 33, .width = 77};
  spec_.process->args = {"/bin/sh", "-c", "tty; stty size; read line; echo got $line"};
  auto listener = sys::ListenUnix(path("console"));
  ASSERT_OK(listener);
  ASSERT_EQ(Create("c", "--console-socket " + path("console")).code, 0) << Output();
  auto connection = sys::Accept(*listener);
  ASSERT_OK(connection);
  auto message = sys::ReceiveDescriptors(*connection, 128);
  ASSERT_OK(message);
  ASSERT_EQ(message->descriptors.size(), 1u);
  const int master = message->descriptors[0].get();

  ASSERT_EQ(Runtime({"start", "c"}).code, 0);
  std::string seen;
  const auto read_until = [&](const std::string& text) {
    return Eventually([&] {
      char bytes[256];
      ::fcntl(master, F_SETFL, O_NONBLOCK);
      const ssize_t size = ::read(master, bytes, sizeof bytes);
      if (size > 0) seen.append(bytes, static_cast<size_t>(size));
      return seen.find(text) != std::string::npos;
    });
  };
  EXPECT_TRUE(read_until("33 77")) << seen;
  EXPECT_THAT(seen, HasSubstr("/dev/pts/0"));
  ASSERT_EQ(::write(master, "hello\n", 6), 6);
  EXPECT_TRUE(read_until("got hello")) << seen;
}

TEST_F(RuntimeLifecycleTest, ADetachedTerminalNeedsAConsoleSocket) {
  spec_.process->terminal = true;
  EXPECT_EQ(Create("c").code, 1);
  EXPECT_THAT(Output(), HasSubstr("--console-socket"));
  EXPECT_FALSE(sys::Exists(path("state/c")));
}

TEST_F(RuntimeLifecycleTest, KeepsPreservedDescriptorsOnly) {
  spec_.process->args = {"/bin/sh", "-c", "cat <&3; ls /proc/self/fd"};
  WriteConfig();
  CommandResult result =
      RunShell(absl::StrCat("echo third >", path("three"), "; ", program_, " --root ",
                            path("state"), " run --preserve-fds 1 --bundle ", path("bundle"),
                            " c 3<", path("three"), " 4</ 9</etc </dev/null"));
  EXPECT_EQ(result.code, 0) << result;
  const std::vector<std::string> lines = absl::StrSplit(result.out, '\n', absl::SkipEmpty());
  ASSERT_GE(lines.size(), 4u);
  EXPECT_EQ(lines[0], "third");
  EXPECT_THAT(lines, Not(::testing::Contains("9")));
}

TEST_F(RuntimeLifecycleTest, HandsOutAPidfd) {
  spec_.process->args = {"/bin/sleep", "1000"};
  auto listener = sys::ListenUnix(path("pidfd"));
  ASSERT_OK(listener);
  ASSERT_EQ(Create("c", "--pidfd-socket " + path("pidfd")).code, 0) << Output();
  auto connection = sys::Accept(*listener);
  ASSERT_OK(connection);
  auto message = sys::ReceiveDescriptors(*connection, 128);
  ASSERT_OK(message);
  ASSERT_EQ(message->descriptors.size(), 1u);
  auto info = sys::ReadFile(absl::StrCat("/proc/self/fdinfo/", message->descriptors[0].get()));
  ASSERT_OK(info);
  EXPECT_THAT(*info, HasSubstr(absl::StrCat("Pid:\t", PidOf("c"), "\n")));
}

TEST_F(RuntimeLifecycleTest, PassesListenFdsOn) {
  spec_.process->args = {"/bin/sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4"};
  WriteConfig();
  CommandResult result = RunShell(
      absl::StrCat("echo three >", path("3"), "; echo four >", path("4"), "; LISTEN_FDS=1 ",
                   program_, " --root ", path("state"), " run --preserve-fds 1 --bundle ",
                   path("bundle"), " c 3<", path("3"), " 4<", path("4"), " </dev/null"));
  EXPECT_EQ(result.out, "1 1\nthree\nfour\n") << result;
}

TEST_F(RuntimeLifecycleTest, ForegroundForwardsSignals) {
  spec_.process->args = {"/bin/sh", "-c",
                         "trap 'exit 42' TERM; echo ready; while true; do sleep 1; done"};
  WriteConfig();
  CommandResult result =
      RunShell(absl::StrCat(program_, " --root ", path("state"), " run --bundle ", path("bundle"),
                            " c >", path("out"), " & pid=$!; while ! grep -q ready ", path("out"),
                            "; do :; done; kill -TERM $pid; wait $pid"));
  EXPECT_EQ(result.code, 42) << result;
}

}  // namespace
}  // namespace gantry::testing
