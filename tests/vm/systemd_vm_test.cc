// The systemd cgroup driver with a real systemd, on cgroup v2 or (vm.py --cgroups hybrid) v1.
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lib/cgroup/cgroup.h"
#include "lib/sys/file.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class SystemdVmTest : public RuntimeTest {
 protected:
  void SetUp() override {
    RuntimeTest::SetUp();
    if (!sys::Exists("/run/systemd/private"))
      GTEST_SKIP() << "needs systemd as the init (tests/vm)";
    auto layout = cgroup::Layout::Detect();
    ASSERT_OK(layout);
    v2_ = layout->mode == cgroup::Mode::kV2;
    spec_.linux_.cgroups_path = "system-gantrytest.slice:gantry:c";
    spec_.process->args = {"/bin/sleep", "1000"};
  }
  // Creates with the driver and starts `spec_`.
  void Start() {
    WriteConfig();
    CommandResult created = RunShell(
        absl::StrCat(program_, " --systemd-cgroup --root ", path("state"), " create --bundle ",
                     path("bundle"), " c </dev/null >", path("out"), " 2>&1"));
    ASSERT_EQ(created.code, 0) << Output();
    CommandResult started = Runtime({"start", "c"});
    ASSERT_EQ(started.code, 0) << started;
  }
  std::string Show(const std::string& property, const std::string& unit = "gantry-c.scope") {
    CommandResult result =
        RunShell(absl::StrCat("systemctl show --value --property ", property, " ", unit));
    EXPECT_EQ(result.code, 0) << result;
    return std::string(absl::StripAsciiWhitespace(result.out));
  }
  bool UnitIsLoaded() { return Show("LoadState") == "loaded"; }
  // The cgroup of the container in the hierarchy of `controller`.
  std::string Directory(const std::string& controller) const {
    return absl::StrCat("/sys/fs/cgroup/", v2_ ? "" : controller,
                        "/system.slice/system-gantrytest.slice/gantry-c.scope");
  }
  std::string Control(const std::string& controller, const std::string& file) {
    auto text = sys::ReadFile(Directory(controller) + "/" + file);
    EXPECT_OK(text);
    return text.ok() ? std::string(absl::StripAsciiWhitespace(*text)) : "";
  }

  bool v2_ = false;
};

TEST_F(SystemdVmTest, TheContainerIsADelegatedScopeInItsSlice) {
  Start();
  EXPECT_EQ(Show("ActiveState"), "active");
  EXPECT_EQ(Show("Slice"), "system-gantrytest.slice");
  EXPECT_EQ(Show("Delegate"), "yes");
  EXPECT_EQ(Show("ControlGroup"), "/system.slice/system-gantrytest.slice/gantry-c.scope");
  auto procs = sys::ReadFile(Directory("systemd") + "/cgroup.procs");
  ASSERT_OK(procs);
  EXPECT_EQ(*procs, absl::StrCat(PidOf("c"), "\n")) << "init alone: the holder is gone";

  CommandResult exec = Runtime({"exec", "c", "/bin/sh", "-c", "cat /proc/self/cgroup"});
  EXPECT_EQ(exec.code, 0) << exec;
  EXPECT_THAT(exec.out, HasSubstr("::/\n")) << "the root of the container's cgroup namespace";

  EXPECT_EQ(Runtime({"delete", "--force", "c"}).code, 0);
  EXPECT_FALSE(UnitIsLoaded());
  EXPECT_FALSE(sys::Exists(Directory("systemd")));
  EXPECT_FALSE(sys::Exists(Directory("memory")));
}

TEST_F(SystemdVmTest, LimitsSurviveAReload) {
  auto& resources = spec_.linux_.resources.emplace();
  resources.memory = oci::MemoryResources{.limit = 64 << 20};
  resources.cpu = oci::CpuResources{.shares = 512, .quota = 55000, .period = 100000, .cpus = "0"};
  resources.pids_limit = 50;
  Start();
  const auto check = [&] {
    EXPECT_EQ(Control("memory", v2_ ? "memory.max" : "memory.limit_in_bytes"), "67108864");
    EXPECT_EQ(Control("pids", "pids.max"), "50");
    EXPECT_EQ(Control("cpu", v2_ ? "cpu.weight" : "cpu.shares"), v2_ ? "59" : "512");
    EXPECT_EQ(Control("cpu", v2_ ? "cpu.max" : "cpu.cfs_quota_us"), v2_ ? "55000 100000" : "55000");
    EXPECT_EQ(Control("cpuset", "cpuset.cpus"), "0");
  };
  check();
  EXPECT_EQ(Show("TasksMax"), "50");

  EXPECT_EQ(RunShell("systemctl daemon-reload").code, 0);
  // A property of its own makes systemd write all of the unit's again.
  EXPECT_EQ(RunShell("systemctl set-property --runtime gantry-c.scope TasksMax=50").code, 0);
  check();
}

TEST_F(SystemdVmTest, UpdateReachesFilesAndUnit) {
  spec_.linux_.resources.emplace().memory = oci::MemoryResources{.limit = 64 << 20};
  Start();
  CommandResult update = Runtime({"update", "--memory", "134217728", "--pids-limit", "33", "c"});
  EXPECT_EQ(update.code, 0) << update;
  EXPECT_EQ(Show("TasksMax"), "33");
  EXPECT_EQ(Control("pids", "pids.max"), "33");
  EXPECT_EQ(Control("memory", v2_ ? "memory.max" : "memory.limit_in_bytes"), "134217728");
  EXPECT_EQ(Show(v2_ ? "MemoryMax" : "MemoryLimit"), "134217728");
}

// Opens the numbers of /dev/fuse and /dev/loop-control, which take no capability; "1" is "denied".
constexpr char kOpenDevices[] =
    "test -e /dev/fuse || mknod /dev/fuse c 10 229; test -e /dev/lc || mknod /dev/lc c 10 237; "
    "for d in fuse lc; do dd if=/dev/$d of=/dev/null bs=1 count=0 2>&1 | grep -c 'not permitted'; "
    "done; echo x >/dev/null && echo null";

TEST_F(SystemdVmTest, DevicesStayFilteredAfterAReload) {
  ASSERT_EQ(RunShell("modprobe -a fuse loop").code, 0);
  auto& resources = spec_.linux_.resources.emplace();
  resources.devices = {{.allow = false, .access = "rwm"},
                       {.allow = true, .type = "c", .major = 10, .minor = 229, .access = "rw"}};
  Start();
  const auto open = [&] {
    return Runtime({"exec", "--cap", "CAP_MKNOD", "c", "/bin/sh", "-c", kOpenDevices}).out;
  };
  EXPECT_EQ(open(), "0\n1\nnull\n");
  EXPECT_EQ(Show("DevicePolicy"), "strict");

  EXPECT_EQ(RunShell("systemctl daemon-reload").code, 0);
  EXPECT_EQ(RunShell("systemctl set-property --runtime gantry-c.scope TasksMax=500").code, 0);
  EXPECT_EQ(open(), "0\n1\nnull\n");
}

TEST_F(SystemdVmTest, AnnotationsSetProperties) {
  spec_.annotations["org.systemd.property.CollectMode"] = "'inactive-or-failed'";
  spec_.annotations["org.systemd.property.TimeoutStopSec"] = "uint64 123";
  Start();
  EXPECT_EQ(Show("CollectMode"), "inactive-or-failed");
  EXPECT_EQ(Show("TimeoutStopUSec"), "2min 3s");
}

TEST_F(SystemdVmTest, RefusedPropertiesFailTheCreationAndLeaveNothing) {
  spec_.annotations["org.systemd.property.NoSuchThing"] = "true";
  WriteConfig();
  CommandResult result = Runtime({"--systemd-cgroup", "run", "--bundle", path("bundle"), "c"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("NoSuchThing"));
  EXPECT_FALSE(UnitIsLoaded());
  EXPECT_FALSE(sys::Exists(path("state/c")));
}

TEST_F(SystemdVmTest, ANameInUseIsRefusedAndItsOwnerLives) {
  Start();
  CommandResult result = Runtime({"--systemd-cgroup", "run", "--bundle", path("bundle"), "d"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("gantry-c.scope"));
  EXPECT_EQ(StateOf("c", "status"), "running");
  EXPECT_EQ(Show("ActiveState"), "active");
}

TEST_F(SystemdVmTest, AContainerKilledForMemoryLeavesNoFailedUnit) {
  spec_.linux_.resources.emplace().memory =
      oci::MemoryResources{.limit = 16 << 20, .swap = 16 << 20};
  spec_.process->args = {"/bin/sh", "-c", "x=$(head -c 100000000 /dev/zero | tr '\\0' a)"};
  WriteConfig();
  CommandResult result = Runtime({"--systemd-cgroup", "run", "--bundle", path("bundle"), "c"});
  EXPECT_NE(result.code, 0) << result;
  EXPECT_FALSE(UnitIsLoaded());
  EXPECT_THAT(
      RunShell("systemctl list-units --all --plain --no-legend --type=scope 'gantry-*'").out,
      IsEmpty());
}

TEST_F(SystemdVmTest, PausesAndStopsAsAnyOther) {
  Start();
  EXPECT_EQ(Runtime({"pause", "c"}).code, 0);
  EXPECT_EQ(StateOf("c", "status"), "paused");
  EXPECT_EQ(Runtime({"resume", "c"}).code, 0);
  EXPECT_EQ(Runtime({"kill", "c", "KILL"}).code, 0);
  ASSERT_TRUE(Eventually([&] { return StateOf("c", "status") == "stopped"; }));
  EXPECT_EQ(Runtime({"delete", "c"}).code, 0);
  EXPECT_FALSE(UnitIsLoaded());
}

TEST_F(SystemdVmTest, ACreationKilledHalfWayIsDeleted) {
  WriteConfig();
  RunShell(absl::StrCat("GANTRY_FAILPOINTS=runtime.create.before_clone=kill ", program_,
                        " --systemd-cgroup --root ", path("state"), " create --bundle ",
                        path("bundle"), " c </dev/null >/dev/null 2>&1"));
  ASSERT_TRUE(sys::Exists(path("state/c")));
  EXPECT_EQ(Runtime({"delete", "--force", "c"}).code, 0);
  EXPECT_FALSE(UnitIsLoaded());
  EXPECT_FALSE(sys::Exists(Directory("systemd")));
  EXPECT_FALSE(sys::Exists(Directory("memory")));
}

TEST_F(SystemdVmTest, RunsWithoutAPathAndInASliceThatIsNew) {
  for (const char* where : {"", "gantry-a-b.slice::c", ":gantry:c"}) {
    spec_.linux_.cgroups_path = where;
    spec_.process->args = {"/bin/true"};
    ASSERT_OK(sys::WriteFileAtomically(path("bundle/config.json"), oci::WriteSpec(spec_), 0644));
    CommandResult result = Runtime({"--systemd-cgroup", "run", "--bundle", path("bundle"), "c"});
    EXPECT_EQ(result.code, 0) << where << result;
  }
}

}  // namespace
}  // namespace gantry::testing
