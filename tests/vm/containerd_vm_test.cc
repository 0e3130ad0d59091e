// containerd's runc shim with SystemdCgroup and gantry-runtime in runc's place, as Kubernetes nodes
// have it.
#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::HasSubstr;

class ContainerdVmTest : public RuntimeTest {
 protected:
  void SetUp() override {
    RuntimeTest::SetUp();
    if (!sys::Exists("/run/systemd/private"))
      GTEST_SKIP() << "needs systemd as the init (tests/vm)";
    if (RunShell("command -v containerd").code != 0) GTEST_SKIP() << "needs containerd";
    const std::string base = path("cd");
    ASSERT_OK(sys::MakeDirectories(base, 0711));
    ASSERT_OK(sys::WriteFileAtomically(
        base + "/config.toml",
        absl::StrCat("version = 2\nroot = \"", base, "/root\"\nstate = \"", base,
                     "/state\"\n[grpc]\n address = \"", base, "/c.sock\"\n[ttrpc]\n address = \"",
                     base, "/t.sock\"\n")));
    auto daemon = sys::Spawn(
        {.argv = {"/usr/bin/containerd", "--config", base + "/config.toml", "--log-level", "error"},
         .environment = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}});
    ASSERT_OK(daemon);
    daemon_ = *std::move(daemon);
    ASSERT_TRUE(Eventually([&] { return Ctr("version >/dev/null 2>&1").code == 0; }));
  }
  void TearDown() override {
    daemon_.KillAndReap();
    RuntimeTest::TearDown();
  }
  CommandResult Ctr(const std::string& words) {
    return RunShell(absl::StrCat("ctr --address ", path("cd"), "/c.sock ", words),
                    {.timeout = absl::Minutes(5)});
  }
  std::string Run(const std::string& options) const {
    return absl::StrCat("run --runc-binary ", program_, " --runc-root ", path("state"),
                        " --runc-systemd-cgroup --cgroup system.slice:ctr:web --rootfs ", options,
                        " ", rootfs(), " ");
  }
  sys::Child daemon_;
};

TEST_F(ContainerdVmTest, RuncsShimStartsContainersInScopes) {
  CommandResult once = Ctr(Run("--rm") + "c1 /bin/sh -c 'echo hello; exit 4'");
  EXPECT_EQ(once.code, 4) << once;
  EXPECT_EQ(once.out, "hello\n");

  CommandResult started = Ctr(Run("-d --memory-limit 67108864") + "c2 /bin/sleep 1000");
  ASSERT_EQ(started.code, 0) << started;
  EXPECT_EQ(RunShell("systemctl show --value -p MemoryMax ctr-web.scope").out, "67108864\n");
  EXPECT_EQ(*sys::ReadFile("/sys/fs/cgroup/system.slice/ctr-web.scope/memory.max"), "67108864\n");
  CommandResult exec = Ctr("task exec --exec-id e c2 /bin/echo inside");
  EXPECT_EQ(exec.out, "inside\n") << exec;
  EXPECT_THAT(Ctr("task metrics c2").out, HasSubstr("memory.usage_limit"));
  EXPECT_EQ(Ctr("task kill -s KILL c2").code, 0);
  EXPECT_TRUE(Eventually([&] { return Ctr("task rm c2").code == 0; }));
  EXPECT_EQ(Ctr("container rm c2").code, 0);
  EXPECT_EQ(RunShell("systemctl show --value -p LoadState ctr-web.scope").out, "not-found\n");
}

}  // namespace
}  // namespace gantry::testing
