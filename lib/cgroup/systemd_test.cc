#include "lib/cgroup/systemd.h"

#include <stdlib.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/cgroup/testing/fake_systemd.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::cgroup {
namespace {

using dbus::Value;
using ::gantry::testing::Fails;
using ::testing::ElementsAre;

class SystemdTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = sys::TempDir::Create();
    ASSERT_OK(made);
    directory_ = std::make_unique<sys::TempDir>(std::move(*made));
  }
  std::string path() const { return directory_->path() + "/bus"; }
  // A connected driver; the fake serves for as long as the test runs.
  Systemd Connect(dbus::Peer peer = dbus::Peer::kDirect) {
    fake_.Serve(path());
    auto systemd = Systemd::Connect({{path(), peer}});
    EXPECT_OK(systemd);
    return *std::move(systemd);
  }
  const UnitName scope_{"system.slice", "web-1.scope"};
  std::unique_ptr<sys::TempDir> directory_;
  FakeSystemd fake_;
};

TEST_F(SystemdTest, StartsAScopeAroundAProcess) {
  Systemd systemd = Connect();

  ASSERT_OK(systemd.StartUnit(scope_, 17, {{"MemoryMax", Value::Uint64(5)}}));

  EXPECT_THAT(
      fake_.property_names(),
      ElementsAre("Description", "PIDs", "Delegate", "Slice", "TasksAccounting", "IOAccounting",
                  "CPUAccounting", "MemoryAccounting", "DefaultDependencies", "MemoryMax"));
  EXPECT_EQ(fake_.properties().members[1].members[1],
            Value::Variant(Value::Array("u", {Value::Uint32(17)})));
  EXPECT_THAT(fake_.calls(), ElementsAre("StartTransientUnit"));
}

TEST_F(SystemdTest, ASliceHasNoProcesses) {
  Systemd systemd = Connect();
  ASSERT_OK(systemd.StartUnit({"a.slice", "a-b.slice"}, 17, {}));
  EXPECT_THAT(fake_.property_names(), ::testing::Not(::testing::Contains("PIDs")));
  EXPECT_THAT(fake_.property_names(), ::testing::Contains("Wants"));
}

TEST_F(SystemdTest, ClearsAFailedUnitOfTheNameAway) {
  fake_.set_occupied(true);
  Systemd systemd = Connect();
  EXPECT_OK(systemd.StartUnit(scope_, 17, {}));
  EXPECT_THAT(fake_.calls(),
              ElementsAre("StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"));
}

TEST_F(SystemdTest, AJobThatFailsIsAnErrorWithItsResult) {
  fake_.set_result("dependency");
  Systemd systemd = Connect();
  EXPECT_THAT(systemd.StartUnit(scope_, 17, {}),
              Fails(absl::StatusCode::kFailedPrecondition, "the job's result is 'dependency'"));
}

TEST_F(SystemdTest, StopsAndForgets) {
  Systemd systemd = Connect();
  EXPECT_OK(systemd.StopUnit("web-1.scope"));
  fake_.set_gone(true);
  EXPECT_OK(systemd.StopUnit("web-1.scope")) << "fine when it is gone";
  EXPECT_THAT(fake_.calls(),
              ElementsAre("StopUnit", "ResetFailedUnit", "StopUnit", "ResetFailedUnit"));
}

TEST_F(SystemdTest, AsksForVersionAndCgroup) {
  Systemd systemd = Connect();
  EXPECT_EQ(systemd.Version().value_or(0), 252);
  EXPECT_EQ(systemd.Version().value_or(0), 252);
  EXPECT_THAT(fake_.calls(), ElementsAre("Get")) << "asked once";
  EXPECT_EQ(systemd.ControlGroup(scope_).value_or(""), "/system.slice/web-1.scope");
  EXPECT_EQ(fake_.asked_path(), "/org/freedesktop/systemd1/unit/web_2d1_2escope");
}

TEST_F(SystemdTest, OnABusItAsksForTheSignal) {
  Systemd systemd = Connect(dbus::Peer::kBus);
  ASSERT_OK(systemd.SetProperties("web-1.scope", {{"TasksMax", Value::Uint64(9)}}));
  EXPECT_THAT(fake_.calls(), ElementsAre("Hello", "AddMatch", "SetUnitProperties"));
  EXPECT_THAT(fake_.property_names(), ElementsAre("TasksMax"));
}

TEST_F(SystemdTest, WithoutSystemdItSaysWhatToDo) {
  EXPECT_THAT(Systemd::Connect({{path()}}).status(),
              Fails(absl::StatusCode::kUnavailable, "use --cgroup-manager cgroupfs"));
  EXPECT_THAT(Systemd::Connect(std::vector<Endpoint>()).status(),
              Fails(absl::StatusCode::kUnavailable, "enable-linger"));
}

TEST(SystemdEndpointsTest, FollowTheEnvironment) {
  ::setenv("DBUS_SESSION_BUS_ADDRESS", "unix:abstract=/x;unix:guid=1,path=/tmp/a%20b", 1);
  ::setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
  const std::vector<Endpoint> user = SystemdEndpoints(true);
  ::unsetenv("DBUS_SESSION_BUS_ADDRESS");
  ::unsetenv("XDG_RUNTIME_DIR");

  ASSERT_EQ(user.size(), 3u);
  EXPECT_EQ(user[0].path, "/tmp/a b");
  EXPECT_EQ(user[1].path, "/run/user/7/systemd/private");
  EXPECT_EQ(user[2].path, "/run/user/7/bus");
  ASSERT_EQ(SystemdEndpoints(false).size(), 2u);
  EXPECT_EQ(SystemdEndpoints(false)[0].path, "/run/systemd/private");
  EXPECT_TRUE(SystemdEndpoints(true).empty());
}

}  // namespace
}  // namespace gantry::cgroup
