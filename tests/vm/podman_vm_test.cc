// podman with gantry-runtime and the systemd cgroup manager, as root.
#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::HasSubstr;

class PodmanVmTest : public RuntimeTest {
 protected:
  void SetUp() override {
    RuntimeTest::SetUp();
    if (!sys::Exists("/run/systemd/private"))
      GTEST_SKIP() << "needs systemd as the init (tests/vm)";
    CommandResult imported =
        RunShell(absl::StrCat("tar -C ", rootfs(), " -c . | ", Command(), "import - bb"), Long());
    ASSERT_EQ(imported.code, 0) << imported;
  }
  void TearDown() override {
    if (scratch_ != nullptr) (void)Podman("rm --force --all --time 0");
    RuntimeTest::TearDown();
  }
  static CommandOptions Long() { return {.timeout = absl::Minutes(5)}; }
  std::string Command() const {
    return absl::StrCat(
        "podman --root ", path("pod/root"), " --runroot ", path("pod/run"), " --tmpdir ",
        path("pod/tmp"),
        " --storage-driver vfs --cgroup-manager systemd --events-backend file --runtime ", program_,
        " ");
  }
  CommandResult Podman(const std::string& words) { return RunShell(Command() + words, Long()); }
};

TEST_F(PodmanVmTest, RunsExecsPausesUpdatesAndStopsInScopes) {
  CommandResult run = Podman(
      "run --rm --network none --memory 64m --cpus 0.5 --pids-limit 44 bb /bin/sh -c "
      "'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max; exit 5'");
  EXPECT_EQ(run.code, 5) << run;
  EXPECT_EQ(run.out, "67108864\n50000 100000\n44\n");

  CommandResult started = Podman("run -d --name p --network none bb /bin/sleep 1000");
  ASSERT_EQ(started.code, 0) << started;
  EXPECT_THAT(RunShell("systemctl list-units --plain --no-legend --type=scope 'libpod-*'").out,
              HasSubstr("running"));
  EXPECT_EQ(Podman("exec p /bin/echo inside").out, "inside\n");
  EXPECT_EQ(Podman("pause p").code, 0);
  EXPECT_EQ(Podman("unpause p").code, 0);
  EXPECT_EQ(Podman("update --memory 100m p").code, 0);
  EXPECT_EQ(Podman("exec p /bin/cat /sys/fs/cgroup/memory.max").out, "104857600\n");
  EXPECT_EQ(Podman("kill p").code, 0);
  EXPECT_TRUE(Eventually(
      [&] { return Podman("inspect p --format '{{.State.Status}}'").out == "exited\n"; }));
}

// Debian's podman calls no container OOMKilled here, crun's neither; the exit code is what it sees.
TEST_F(PodmanVmTest, AContainerThatRunsOutOfMemoryIsKilled) {
  CommandResult run = Podman(
      "run --name o --network none --memory 24m --memory-swap 24m bb /bin/sh -c "
      "'x=$(head -c 100000000 /dev/zero | tr \"\\0\" a)'");
  EXPECT_EQ(run.code, 137) << run;
  EXPECT_EQ(Podman("inspect o --format '{{.State.ExitCode}}'").out, "137\n");
}

}  // namespace
}  // namespace gantry::testing
