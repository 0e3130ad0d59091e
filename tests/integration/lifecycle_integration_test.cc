// create → start → stop → rm and everything between, by command.

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandResult;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class LifecycleTest : public testing::SuiteTest {};

TEST_F(LifecycleTest, CreateStartStopRemove) {
  const CommandResult created = Ctl({"create", "--name", "c1", Image(), "sh", "-c",
                                     "trap 'exit 3' TERM; while :; do sleep 0.05; done"});
  ASSERT_EQ(created.code, 0) << created;
  EXPECT_EQ(Inspect("c1", "{{.State.Status}}"), "created");
  EXPECT_EQ(Ctl({"start", "c1"}).out, "c1\n");
  EXPECT_EQ(Inspect("c1", "{{.State.Running}}"), "true");
  EXPECT_THAT(Ctl({"rm", "c1"}).err, HasSubstr("running container"));
  EXPECT_EQ(Ctl({"stop", "c1"}).out, "c1\n");
  EXPECT_EQ(Inspect("c1", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
  EXPECT_EQ(Ctl({"rm", "c1"}).out, "c1\n");
  const CommandResult gone = Ctl({"inspect", "c1"});
  EXPECT_EQ(gone.code, 1);
  EXPECT_EQ(absl::StripAsciiWhitespace(gone.out), "[]");
}

TEST_F(LifecycleTest, StopKillsAfterTheTimeout) {
  const std::string id = RunDetached({}, {"sleep", "600"});
  EXPECT_EQ(Ctl({"stop", "-t", "1", id}).code, 0);
  EXPECT_EQ(Inspect(id, "{{.State.ExitCode}}"), "137");
}

TEST_F(LifecycleTest, StartAgainKeepsTheFiles) {
  const std::string id = RunDetached({}, {"sh", "-c", "echo x >> /count; wc -l < /count"});
  EXPECT_EQ(Ctl({"wait", id}).out, "0\n");
  EXPECT_EQ(Ctl({"start", "-a", id}).out, "2\n");
  EXPECT_EQ(Ctl({"logs", id}).out, "1\n2\n");
}

TEST_F(LifecycleTest, PauseStopsTheClock) {
  const std::string id = RunDetached({}, {"sh", "-c", "while :; do echo x; sleep 0.02; done"});
  ASSERT_EQ(Ctl({"pause", id}).code, 0);
  EXPECT_EQ(Inspect(id, "{{.State.Status}}"), "paused");
  EXPECT_THAT(Ctl({"ps"}).out, HasSubstr("(Paused)"));
  EXPECT_THAT(Ctl({"exec", id, "true"}).err, HasSubstr("paused"));
  const std::string before = Ctl({"logs", id}).out;
  EXPECT_EQ(testing::RunShell("sleep 0.3").code, 0);
  EXPECT_EQ(Ctl({"logs", id}).out, before);
  EXPECT_EQ(Ctl({"unpause", id}).code, 0);
  EXPECT_TRUE(
      Eventually(absl::StrCat("[ $($CTL logs ", id, " | wc -c) -gt ", before.size(), " ]")));
}

TEST_F(LifecycleTest, KillAndSignals) {
  const std::string id =
      RunDetached({}, {"sh", "-c", "trap 'echo usr1' USR1; while :; do sleep 0.02; done"});
  EXPECT_TRUE(Eventually("$CTL exec " + id + " grep SigCgt /proc/1/status | grep -q 2"));
  EXPECT_EQ(Ctl({"kill", "-s", "USR1", id}).code, 0);
  EXPECT_TRUE(Eventually("$CTL logs " + id + " | grep -q usr1"));
  EXPECT_EQ(Ctl({"kill", id}).code, 0);
  EXPECT_EQ(Ctl({"wait", id}).out, "137\n");
  const CommandResult again = Ctl({"kill", id});
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.err, HasSubstr("not running"));
}

TEST_F(LifecycleTest, ExecSeesTheContainer) {
  const std::string id = RunDetached({"-e", "A=1", "--name", "ex"}, {"sleep", "600"});
  EXPECT_EQ(Ctl({"exec", "-e", "B=2", "-w", "/tmp", "-u", "app", "ex", "sh", "-c",
                 "echo $A$B; pwd; id -u"})
                .out,
            "12\n/tmp\n1000\n");
  EXPECT_EQ(Ctl({"exec", "ex", "sh", "-c", "exit 9"}).code, 9);
  EXPECT_EQ(Ctl({"exec", "ex", "no-such-program"}).code, 127);
  EXPECT_EQ(Ctl({"exec", "ex", "/etc/passwd"}).code, 126);
  testing::CommandOptions input;
  input.input = "hello";
  EXPECT_EQ(Ctl({"exec", "-i", "ex", "cat"}, input).out, "hello");
  EXPECT_EQ(Ctl({"exec", "-d", "ex", "touch", "/made"}).code, 0);
  EXPECT_TRUE(Eventually("$CTL exec ex ls /made >/dev/null 2>&1"));
  EXPECT_EQ(Ctl({"stop", "-t", "0", "ex"}).code, 0);
  const CommandResult stopped = Ctl({"exec", "ex", "true"});
  EXPECT_NE(stopped.code, 0);
  EXPECT_THAT(stopped.err, HasSubstr("not running"));
}

TEST_F(LifecycleTest, RestartPolicies) {
  const std::string id = RunDetached({"--restart", "on-failure:2"}, {"sh", "-c", "exit 1"});
  EXPECT_TRUE(Eventually("[ \"$($CTL inspect -f '{{.State.Status}} {{.RestartCount}}' " + id +
                         ")\" = 'exited 2' ]"));
  const std::string always = RunDetached({"--restart", "always"}, {"sleep", "600"});
  const std::string pid = Inspect(always, "{{.State.Pid}}");
  EXPECT_EQ(testing::RunCommand({"kill", "-9", pid}).code, 0);
  EXPECT_TRUE(Eventually("[ \"$($CTL inspect -f '{{.State.Running}} {{.RestartCount}}' " + always +
                         ")\" = 'true 1' ]"));
  EXPECT_EQ(Ctl({"stop", "-t", "0", always}).code, 0);
  EXPECT_EQ(testing::RunShell("sleep 0.5").code, 0);
  EXPECT_EQ(Inspect(always, "{{.State.Status}}"), "exited") << "a stop by hand is not undone";
}

TEST_F(LifecycleTest, RestartCommandAndRename) {
  RunDetached({"--name", "old"}, {"sleep", "600"});
  const std::string before = Inspect("old", "{{.State.Pid}}");
  EXPECT_EQ(Ctl({"restart", "-t", "0", "old"}).code, 0);
  EXPECT_NE(Inspect("old", "{{.State.Pid}}"), before);
  EXPECT_EQ(Ctl({"rename", "old", "new"}).code, 0);
  EXPECT_EQ(Inspect("new", "{{.Name}}"), "/new");
  EXPECT_NE(Ctl({"inspect", "old"}).code, 0);
}

TEST_F(LifecycleTest, AutoRemoveLeavesNothing) {
  EXPECT_EQ(Run({"--name", "brief"}, {"true"}).code, 0);
  EXPECT_EQ(Ctl({"ps", "-aq"}).out, "");
}

TEST_F(LifecycleTest, PsListsAndFilters) {
  RunDetached({"--name", "ps-on", "--label", "tier=web"}, {"sleep", "600"});
  RunDetached({"--name", "ps-off"}, {"true"});
  EXPECT_EQ(Ctl({"wait", "ps-off"}).code, 0);
  const std::string table = Ctl({"ps"}).out;
  EXPECT_THAT(table,
              ContainsRegex("^CONTAINER ID   IMAGE .*COMMAND .*CREATED .*STATUS .*PORTS .*NAMES"));
  EXPECT_THAT(table, HasSubstr("ps-on"));
  EXPECT_THAT(table, Not(HasSubstr("ps-off")));
  EXPECT_EQ(Lines(Ctl({"ps", "-aq"}).out).size(), 2u);
  EXPECT_EQ(Ctl({"ps", "-a", "--filter", "status=exited", "--format", "{{.Names}}"}).out,
            "ps-off\n");
  EXPECT_EQ(Ctl({"ps", "-a", "--filter", "label=tier=web", "--format", "{{.Names}}"}).out,
            "ps-on\n");
  EXPECT_EQ(Ctl({"ps", "--filter", "name=ps", "--format", "{{.Names}}"}).out, "ps-on\n");
  EXPECT_NE(Ctl({"ps", "--filter", "colour=red"}).code, 0);
}

TEST_F(LifecycleTest, IdPrefixesWorkAndUnknownNamesAreSaid) {
  const std::string id = RunDetached({}, {"sleep", "600"});
  EXPECT_EQ(Inspect(id.substr(0, 10), "{{.Id}}"), id);
  const CommandResult unknown = Ctl({"stop", "nobody", id.substr(0, 12)});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_THAT(unknown.err, HasSubstr("No such container: nobody"));
  EXPECT_EQ(Inspect(id, "{{.State.Running}}"), "false") << "the others are still done";
}

TEST_F(LifecycleTest, InspectHasDockersKeys) {
  const std::string id = RunDetached({"--name", "look"}, {"sleep", "600"});
  const std::string json = Ctl({"inspect", "look"}).out;
  for (const char* key : {"\"Id\"",         "\"Created\"",     "\"Path\"",
                          "\"Args\"",       "\"State\"",       "\"Status\"",
                          "\"OOMKilled\"",  "\"Image\"",       "\"ResolvConfPath\"",
                          "\"HostsPath\"",  "\"LogPath\"",     "\"RestartCount\"",
                          "\"HostConfig\"", "\"GraphDriver\"", "\"LowerDir\"",
                          "\"UpperDir\"",   "\"MergedDir\"",   "\"WorkDir\"",
                          "\"Mounts\"",     "\"Config\"",      "\"NetworkSettings\"",
                          "\"IPAddress\""}) {
    EXPECT_THAT(json, HasSubstr(key));
  }
  EXPECT_EQ(Inspect("look", "{{.Path}} {{join .Args \",\"}}"), "sleep 600");
  const std::string merged = Inspect("look", "{{.GraphDriver.Data.MergedDir}}");
  EXPECT_EQ(testing::RunCommand({"ls", merged + "/bin/busybox"}).code, 0);
  EXPECT_EQ(Ctl({"exec", "look", "rm", "/etc/passwd"}).code, 0);
  const std::string upper = Inspect("look", "{{.GraphDriver.Data.UpperDir}}");
  EXPECT_EQ(testing::RunCommand({"stat", "-c", "%F %t:%T", upper + "/etc/passwd"}).out,
            "character special file 0:0\n");
}

TEST_F(LifecycleTest, EventsTellTheStory) {
  const std::string id = RunDetached({"--name", "story"}, {"true"});
  EXPECT_EQ(Ctl({"wait", id}).code, 0);
  EXPECT_EQ(Ctl({"rm", "story"}).code, 0);
  const std::string events =
      Ctl({"events", "--since", "10m", "--until", "0s", "--filter", "container=" + id}).out;
  size_t at = 0;
  for (const char* action : {"create", "start", "die"}) {
    at = events.find(action, at);
    EXPECT_NE(at, std::string::npos) << action << " missing or out of order in:\n" << events;
  }
}

TEST_F(LifecycleTest, VersionAndInfoNameEveryProcess) {
  const CommandResult version = Ctl({"version"});
  EXPECT_EQ(version.code, 0) << version;
  for (const std::string& process : testing::Suite::Processes()) {
    EXPECT_THAT(version.out, HasSubstr(process));
  }
  const CommandResult info = Ctl({"info"});
  EXPECT_EQ(info.code, 0) << info;
  for (const char* line : {"Containers:", "Running:", "Images:", "Storage Driver: overlay2",
                           "Logging Driver: json-file", "Cgroup Driver: cgroupfs",
                           "Cgroup Version: 1", "Kernel Version:"}) {
    EXPECT_THAT(info.out, HasSubstr(line));
  }
}

}  // namespace
}  // namespace gantry
