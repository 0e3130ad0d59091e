// kill -9 of any service while containers run and log: they go on, nothing is lost, the service
// comes back, re-adopts, and tells every exit that happened meanwhile.

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandResult;
using ::testing::HasSubstr;

class KilledServiceTest : public testing::SuiteTest,
                          public ::testing::WithParamInterface<std::string> {};

TEST_P(KilledServiceTest, ContainersGoOnAndExitsAreTold) {
  const std::string& service = GetParam();
  RunDetached({"--name", "runs"},
              {"sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"});
  RunDetached({"--name", "ends"}, {"sh", "-c", "until [ -e /go ]; do sleep 0.02; done; exit 33"});
  const std::string pid = Inspect("runs", "{{.State.Pid}}");
  const std::string ends_pid = Inspect("ends", "{{.State.Pid}}");
  const std::string log = Inspect("runs", "{{.LogPath}}");

  suite_->Kill(service);
  // While the service is dead: the one goes on, the other ends.
  const std::string before = testing::RunShell("wc -l < " + log).out;
  EXPECT_EQ(testing::RunShell("touch /proc/" + ends_pid + "/root/go").code, 0);
  EXPECT_TRUE(Eventually("! kill -0 " + ends_pid + " 2>/dev/null || grep -q '^State:.Z' /proc/" +
                         ends_pid + "/status"));
  EXPECT_TRUE(Eventually("[ $(wc -l < " + log + ") -gt $((" +
                         std::string(absl::StripAsciiWhitespace(before)) + " + 20)) ]"));
  ASSERT_OK(suite_->Launch(service));

  EXPECT_EQ(Inspect("runs", "{{.State.Pid}}"), pid) << "the same process, untouched";
  EXPECT_TRUE(Eventually(
      "[ \"$($CTL inspect -f '{{.State.Status}} {{.State.ExitCode}}' ends)\" = 'exited 33' ]"));
  EXPECT_EQ(Ctl({"exec", "runs", "echo", "alive"}).out, "alive\n");
  const CommandResult fresh = Run({}, {"echo", "new ones start"});
  EXPECT_EQ(fresh.out, "new ones start\n") << fresh;
  EXPECT_EQ(Ctl({"stop", "-t", "0", "runs"}).code, 0);
  // Every number once, in order: nothing lost from the log.
  const std::vector<std::string> lines = Lines(Ctl({"logs", "runs"}).out);
  ASSERT_GT(lines.size(), 20u);
  for (size_t i = 0; i < lines.size(); ++i) ASSERT_EQ(lines[i], absl::StrCat(i + 1));
}

TEST_P(KilledServiceTest, AStoppedSuiteKeepsContainersToo) {
  const std::string& service = GetParam();
  RunDetached({"--name", "stays"}, {"sleep", "600"});
  const std::string pid = Inspect("stays", "{{.State.Pid}}");
  absl::StatusOr<sys::ExitStatus> status = suite_->Stop(service);
  ASSERT_OK(status);
  EXPECT_EQ(status->code, 0) << suite_->Log(service);
  ASSERT_OK(suite_->Launch(service));
  EXPECT_EQ(Inspect("stays", "{{.State.Pid}}"), pid);
}

INSTANTIATE_TEST_SUITE_P(EachService, KilledServiceTest,
                         ::testing::Values("snapshotter", "metadata", "image", "task", "engine",
                                           "gateway"),
                         [](const auto& parameter) { return parameter.param; });

class KilledShimTest : public testing::SuiteTest {};

TEST_F(KilledShimTest, AKilledShimIsCleanedUp) {
  RunDetached({"--name", "orphan"}, {"sleep", "600"});
  const std::string pid = Inspect("orphan", "{{.State.Pid}}");
  const CommandResult killed =
      testing::RunShell("kill -9 $(awk '/^PPid/{print $2}' /proc/" + pid + "/status)");
  ASSERT_EQ(killed.code, 0) << killed;
  EXPECT_TRUE(Eventually(
      "[ \"$($CTL inspect -f '{{.State.Status}} {{.State.ExitCode}}' orphan)\" = 'exited 137' ]"));
  EXPECT_TRUE(Eventually("! kill -0 " + pid + " 2>/dev/null"));
}

TEST_F(KilledShimTest, EverythingKilledAtOnceComesBack) {
  RunDetached({"--name", "runs"}, {"sh", "-c", "while :; do sleep 0.05; done"});
  RunDetached({"--name", "again", "--restart", "always"}, {"sleep", "600"});
  const std::string pid = Inspect("runs", "{{.State.Pid}}");
  const std::string again = Inspect("again", "{{.State.Pid}}");
  for (const std::string& service : testing::Suite::Processes()) suite_->Kill(service);
  ASSERT_EQ(testing::RunCommand({"kill", "-9", again}).code, 0);
  for (const std::string& service : testing::Suite::Processes()) ASSERT_OK(suite_->Launch(service));
  EXPECT_EQ(Inspect("runs", "{{.State.Pid}}"), pid);
  EXPECT_TRUE(Eventually("[ \"$($CTL inspect -f '{{.State.Running}}' again)\" = true ]"));
}

}  // namespace
}  // namespace gantry
