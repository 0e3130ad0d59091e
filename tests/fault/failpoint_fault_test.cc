// A whole life with every failpoint of every process: whatever it does there, the caller gets an
// error or an answer, the next container works, and nothing leaks.

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandResult;

class FailpointTest : public testing::SuiteTest, public ::testing::WithParamInterface<std::string> {
 protected:
  static std::vector<std::string> Failpoints(const std::string& process) {
    const CommandResult list =
        testing::RunCommand({testing::BinDirectory() + "/gantry-" + process, "--list-failpoints"});
    EXPECT_EQ(list.code, 0) << list;
    return Lines(list.out);
  }

  // Pull, run, exec, stop, remove: passes every step there is. Its errors are allowed here.
  void LiveOnce() {
    testing::CommandOptions options;
    options.timeout = absl::Seconds(40);
    (void)Ctl({"pull", "-q", registry_->address() + "/second:latest"}, options);
    (void)Ctl({"run", "-d", "--name", "victim", "-v", "vol:/data", "-p", "8089:80", Image(),
               "sleep", "600"},
              options);
    (void)Ctl({"exec", "victim", "true"}, options);
    (void)Ctl({"stop", "-t", "0", "victim"}, options);
    (void)Ctl({"rm", "-f", "-v", "victim"}, options);
    (void)Ctl({"volume", "rm", "vol"}, options);
    (void)Ctl({"rmi", registry_->address() + "/second:latest"}, options);
  }

  // After the fault: all clean-up commands work, and a container runs.
  void ExpectHealthy(const std::string& what) {
    for (int i = 0; i < 2; ++i) {
      (void)Ctl({"rm", "-f", "-v", "victim"});
      (void)Ctl({"volume", "rm", "-f", "vol"});
      (void)Ctl({"rmi", "-f", registry_->address() + "/second:latest"});
    }
    const CommandResult run = Run({}, {"echo", "fine"});
    EXPECT_EQ(run.out, "fine\n") << what << "\n" << run;
    EXPECT_TRUE(Eventually("$CTL system audit > /dev/null", absl::Seconds(15)))
        << what << "\n"
        << Ctl({"system", "audit"});
  }
};

TEST_P(FailpointTest, ErrorsLeaveNothing) {
  const std::string& process = GetParam();
  ASSERT_OK(registry_->Push("second", 1, 1));
  const std::vector<std::string> names = Failpoints(process);
  ASSERT_FALSE(names.empty());
  for (const std::string& name : names) {
    const CommandResult armed = Ctl({"system", "failpoints", "set", process, name + "=error"});
    ASSERT_EQ(armed.code, 0) << armed;
    LiveOnce();
    ASSERT_EQ(Ctl({"system", "failpoints", "set", process, name + "=off"}).code, 0);
    ExpectHealthy(name + "=error");
    if (HasFailure()) return;
  }
}

TEST_P(FailpointTest, DeathsLeaveNothing) {
  const std::string& process = GetParam();
  ASSERT_OK(registry_->Push("second", 1, 1));
  for (const std::string& name : Failpoints(process)) {
    const CommandResult armed = Ctl({"system", "failpoints", "set", process, name + "=kill@1"});
    ASSERT_EQ(armed.code, 0) << armed;
    LiveOnce();
    // Reap it whether it died or never passed there, and start it anew: nothing is armed then.
    suite_->Kill(process);
    ASSERT_OK(suite_->Launch(process)) << name;
    ExpectHealthy(name + "=kill");
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(EachService, FailpointTest,
                         ::testing::Values("snapshotter", "metadata", "image", "task", "engine"),
                         [](const auto& parameter) { return parameter.param; });

}  // namespace
}  // namespace gantry
