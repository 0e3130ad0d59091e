// The systemd cgroup driver against a systemd of the test's own, which makes no cgroups: what is
// asked of it, and that nothing is left. tests/vm/systemd_test.cc has the real one.
#include "absl/strings/str_cat.h"
#include "lib/cgroup/testing/fake_systemd.h"
#include "lib/sys/file.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

class RuntimeSystemdTest : public RuntimeTest {
 protected:
  void SetUp() override {
    RuntimeTest::SetUp();
    environment_.environment = {
        absl::StrCat("DBUS_SYSTEM_BUS_ADDRESS=unix:path=", path("bus"), ",guid=0")};
    // Where the tests look for what was left behind.
    systemd_.set_slice(cgroup_);
    spec_.linux_.cgroups_path = "system.slice::leaf";
  }
  CommandResult WithSystemd(std::vector<std::string> words) {
    words.insert(words.begin(), "--systemd-cgroup");
    return Runtime(std::move(words), environment_);
  }
  // Runs `sh -c SCRIPT` in a container with the driver.
  CommandResult Run(const std::string& script) {
    spec_.process->args = {"/bin/sh", "-c", script};
    WriteConfig();
    return WithSystemd({"run", "--bundle", path("bundle"), "c"});
  }
  void TearDown() override {
    if (scratch_ == nullptr) return;
    auto ids = sys::ListDirectory(path("state"));
    const std::vector<std::string> left = ids.ok() ? *ids : std::vector<std::string>();
    for (const std::string& id : left) {
      if (id[0] == '.') continue;
      EXPECT_EQ(WithSystemd({"delete", "--force", id}).code, 0);
    }
    RuntimeTest::TearDown();
  }

  CommandOptions environment_;
  cgroup::FakeSystemd systemd_;
};

TEST_F(RuntimeSystemdTest, RunsInAScopeAndStopsIt) {
  systemd_.Serve(path("bus"));
  spec_.linux_.resources.emplace().pids_limit = 50;
  spec_.annotations["org.systemd.property.CollectMode"] = "'inactive-or-failed'";

  CommandResult result = Run("echo inside; exit 7");

  EXPECT_EQ(result.code, 7) << result;
  EXPECT_EQ(result.out, "inside\n");
  EXPECT_THAT(systemd_.property_names(),
              IsSupersetOf({"PIDs", "Delegate", "Slice", "TasksMax", "CollectMode"}));
  EXPECT_THAT(systemd_.calls(),
              IsSupersetOf({"StartTransientUnit", "StopUnit", "ResetFailedUnit"}));
  EXPECT_THAT(CgroupDirectories(), ::testing::IsEmpty());
}

TEST_F(RuntimeSystemdTest, LaterCommandsNeedNotBeToldTheDriver) {
  systemd_.Serve(path("bus"));
  spec_.linux_.resources.emplace().pids_limit = 50;
  spec_.process->args = {"/bin/sleep", "1000"};
  WriteConfig();
  CommandResult created = RunShell(
      absl::StrCat(program_, " --systemd-cgroup --root ", path("state"), " create --bundle ",
                   path("bundle"), " c </dev/null >", path("out"), " 2>&1"),
      environment_);
  ASSERT_EQ(created.code, 0) << Output();
  EXPECT_EQ(Runtime({"start", "c"}, environment_).code, 0);

  CommandResult exec = Runtime({"exec", "c", "/bin/echo", "inside"}, environment_);
  EXPECT_EQ(exec.out, "inside\n") << exec;
  CommandResult update = Runtime({"update", "--pids-limit", "60", "c"}, environment_);
  EXPECT_EQ(update.code, 0) << update;

  EXPECT_THAT(systemd_.calls(), Contains("SetUnitProperties"));
  EXPECT_THAT(systemd_.property_names(), Contains("TasksMax"));
  EXPECT_EQ(Runtime({"delete", "--force", "c"}, environment_).code, 0);
  EXPECT_EQ(systemd_.calls().back(), "ResetFailedUnit");
}

TEST_F(RuntimeSystemdTest, WithoutSystemdItSaysWhatToDoAndLeavesNothing) {
  CommandResult result = Run("true");
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("cannot reach systemd"));
  EXPECT_THAT(result.err, HasSubstr("--cgroup-manager cgroupfs"));
  EXPECT_FALSE(sys::Exists(path("state/c")));
}

TEST_F(RuntimeSystemdTest, AWrongPathOrPropertyIsRefusedByItsKey) {
  systemd_.Serve(path("bus"));
  spec_.linux_.cgroups_path = "/not/three/parts";
  EXPECT_THAT(Run("true").err, HasSubstr("linux.cgroupsPath"));
  spec_.linux_.cgroups_path = "system.slice::leaf";
  spec_.annotations["org.systemd.property.CollectMode"] = "[";
  EXPECT_THAT(Run("true").err, HasSubstr("org.systemd.property.CollectMode"));
  EXPECT_THAT(systemd_.calls(), ::testing::IsEmpty());
}

TEST_F(RuntimeSystemdTest, AUnitThatCannotStartLeavesNothing) {
  systemd_.Serve(path("bus"));
  systemd_.set_result("failed");
  CommandResult result = Run("true");
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("start the systemd unit 'leaf.scope'"));
  EXPECT_THAT(systemd_.calls(), Contains("StopUnit"));
  EXPECT_FALSE(sys::Exists(path("state/c")));
}

TEST_F(RuntimeSystemdTest, AFailedCreationStopsItsUnit) {
  systemd_.Serve(path("bus"));
  spec_.process->args = {"no-such-program"};
  WriteConfig();
  EXPECT_EQ(WithSystemd({"run", "--bundle", path("bundle"), "c"}).code, 1);
  EXPECT_THAT(systemd_.calls(), Contains("StopUnit"));
  EXPECT_THAT(CgroupDirectories(), ::testing::IsEmpty());
}

}  // namespace
}  // namespace gantry::testing
