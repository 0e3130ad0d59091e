// An ordinary user's containers: ids by newuidmap, cgroups from the user's own systemd; podman.
#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::HasSubstr;

class RootlessVmTest : public RuntimeTest {
 protected:
  static constexpr char kUid[] = "2345";  // Of guest/job.

  void SetUp() override {
    RuntimeTest::SetUp();
    if (::getenv("GANTRY_VM_USER") == nullptr) GTEST_SKIP() << "needs the user of vm.py --user";
    ASSERT_EQ(RunShell(absl::StrCat("chown -R ", kUid, ":", kUid, " ", path("bundle"))).code, 0);
    auto& linux = spec_.linux_;
    linux.namespaces.push_back({.type = "user"});
    linux.uid_mappings = {{.container_id = 0, .host_id = 2345, .size = 1},
                          {.container_id = 1, .host_id = 200000, .size = 65535}};
    linux.gid_mappings = linux.uid_mappings;
    linux.cgroups_path = "user.slice:gantry:rootless";
  }
  void TearDown() override {
    if (scratch_ != nullptr) AsUser(Command("delete --force c"));
    RuntimeTest::TearDown();
  }

  std::string Command(const std::string& words) const {
    return absl::StrCat(program_, " --systemd-cgroup --root /run/user/", kUid, "/gr ", words);
  }
  // As in a session that was opened from outside: not in the user's own part of the cgroup tree.
  CommandResult AsUser(const std::string& script) {
    return RunShell(absl::StrCat("cd / && exec setpriv --reuid ", kUid, " --regid ", kUid,
                                 " --init-groups --reset-env env XDG_RUNTIME_DIR=/run/user/", kUid,
                                 " PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin /bin/sh -c '",
                                 script, "'"),
                    {.timeout = absl::Minutes(5)});
  }
  // Below the user's own systemd.
  CommandResult InUserService(const std::string& script) {
    return AsUser(absl::StrCat("systemd-run --user --wait --pipe --quiet --collect /bin/sh -c \"",
                               script, "\""));
  }
  std::string Run() const { return Command(absl::StrCat("run --bundle ", path("bundle"), " c")); }
  void Configure(const std::string& script) {
    spec_.process->args = {"/bin/sh", "-c", script};
    ASSERT_OK(sys::WriteFileAtomically(path("bundle/config.json"), oci::WriteSpec(spec_), 0644));
  }
};

TEST_F(RootlessVmTest, SeveralIdsAreMappedByTheHelpers) {
  Configure("cat /proc/self/uid_map; id -u; exit 6");
  CommandResult result = InUserService(Run());
  EXPECT_EQ(result.code, 6) << result;
  EXPECT_THAT(result.out, ::testing::ContainsRegex("0 +2345 +1\n +1 +200000 +65535\n0\n"));
}

TEST_F(RootlessVmTest, AnotherIdThanRootCanRunAndOwnFiles) {
  spec_.process->user.uid = 1000;
  spec_.process->user.gid = 1000;
  Configure("id; touch /tmp/x 2>/dev/null; exit 0");
  ASSERT_EQ(RunShell("chmod 1777 " + rootfs("/tmp")).code, 0);
  CommandResult result = InUserService(Run());
  EXPECT_THAT(result.out, HasSubstr("uid=1000 gid=1000")) << result;
  EXPECT_EQ(RunShell("stat -c %u " + rootfs("/tmp/x")).out, "200999\n");
}

TEST_F(RootlessVmTest, LimitsComeFromTheUsersOwnSystemd) {
  auto& resources = spec_.linux_.resources.emplace();
  resources.memory = oci::MemoryResources{.limit = 64 << 20};
  resources.pids_limit = 33;
  Configure("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; cat /proc/self/cgroup");
  CommandResult result = InUserService(Run());
  EXPECT_EQ(result.out, "67108864\n33\n0::/\n") << result;
  EXPECT_EQ(AsUser("systemctl --user show --value -p LoadState gantry-rootless.scope").out,
            "not-found\n");
}

TEST_F(RootlessVmTest, FromASessionOutsideItsTreeSystemdMovesTheProcesses) {
  spec_.linux_.resources.emplace().pids_limit = 33;
  Configure("cat /sys/fs/cgroup/pids.max; sleep 1000");
  CommandResult created = AsUser(absl::StrCat(
      Command(absl::StrCat("create --bundle ", path("bundle"), " c")), " </dev/null >",
      "/run/user/", kUid, "/out 2>&1; ", "cat /run/user/", kUid, "/out; ", Command("start c")));
  ASSERT_EQ(created.code, 0) << created;
  CommandResult exec = AsUser(Command("exec c /bin/cat /proc/self/cgroup"));
  EXPECT_EQ(exec.out, "0::/\n") << exec;
  const std::string group(absl::StripAsciiWhitespace(
      AsUser("systemctl --user show --value -p ControlGroup gantry-rootless.scope").out));
  EXPECT_THAT(group, HasSubstr("user@2345.service"));
  EXPECT_EQ(*sys::ReadFile(absl::StrCat("/sys/fs/cgroup", group, "/pids.max")), "33\n");
  EXPECT_EQ(AsUser(Command("delete --force c")).code, 0);
}

TEST_F(RootlessVmTest, WithoutACgroupOfItsOwnItRunsUnlessItAsksForLimits) {
  spec_.linux_.cgroups_path = "/gantry-rootless-none";
  Configure("exit 5");
  const std::string plain =
      absl::StrCat(program_, " --root /run/user/", kUid, "/gr run --bundle ", path("bundle"), " c");
  CommandResult result = AsUser(plain);
  EXPECT_EQ(result.code, 5) << result;
  spec_.linux_.resources.emplace().pids_limit = 33;
  Configure("exit 5");
  CommandResult limited = AsUser(plain);
  EXPECT_EQ(limited.code, 1);
  EXPECT_THAT(limited.err, HasSubstr("delegated cgroup"));
}

TEST_F(RootlessVmTest, AUserWithoutASystemdIsToldSo) {
  Configure("true");
  CommandResult result = AsUser("unset XDG_RUNTIME_DIR; " + Run());
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("enable-linger"));
}

TEST_F(RootlessVmTest, PodmanOfAnOrdinaryUserRunsIt) {
  if (RunShell("command -v podman").code != 0) GTEST_SKIP() << "needs podman";
  const std::string podman = absl::StrCat(
      "podman --storage-driver vfs --cgroup-manager systemd --events-backend file --runtime ",
      program_, " ");
  CommandResult imported =
      AsUser(absl::StrCat("tar -C ", rootfs(), " -c . | ", podman, "import - bb"));
  ASSERT_EQ(imported.code, 0) << imported;
  CommandResult run = AsUser(
      absl::StrCat(podman, "run --rm --network none --memory 64m --pids-limit 44 bb /bin/sh -c ",
                   "\"cat /sys/fs/cgroup/pids.max; id -u; exit 7\""));
  EXPECT_EQ(run.code, 7) << run;
  EXPECT_EQ(run.out, "44\n0\n");
  ASSERT_EQ(AsUser(podman + "run -d --name p --network none bb /bin/sleep 1000").code, 0);
  CommandResult exec = AsUser(podman + "exec p /bin/echo inside");
  EXPECT_EQ(exec.out, "inside\n") << exec;
  EXPECT_EQ(AsUser(podman + "rm --force --time 0 p").code, 0);
}

}  // namespace
}  // namespace gantry::testing
