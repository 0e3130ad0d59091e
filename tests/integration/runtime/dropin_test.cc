// Other engines with gantry-runtime in the place of their own runtime: Debian's podman, buildah and
// containerd, each with a storage of the test's own; and an ordinary user.
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::HasSubstr;

bool Installed(const std::string& program) { return RunShell("command -v " + program).code == 0; }

class RuntimeDropInTest : public RuntimeTest {
 protected:
  std::string PodmanCommand() const {
    return absl::StrCat("podman --root ", path("pod/root"), " --runroot ", path("pod/run"),
                        " --tmpdir ", path("pod/tmp"),
                        " --storage-driver vfs --cgroup-manager cgroupfs --events-backend file "
                        "--runtime ",
                        program_, " ");
  }
  CommandResult Podman(const std::string& words) { return RunShell(PodmanCommand() + words); }
  // An image "bb" made from our rootfs.
  void MakePodmanImage() {
    if (!Installed("podman")) GTEST_SKIP() << "needs podman";
    CommandResult imported =
        RunShell(absl::StrCat("tar -C ", rootfs(), " -c . | ", PodmanCommand(), "import - bb"));
    ASSERT_EQ(imported.code, 0) << imported;
  }
  void TearDown() override {
    if (scratch_ != nullptr && sys::Exists(path("pod"))) {
      (void)Podman("rm --force --all --time 0");
      // podman forgets the cgroup of its conmon, and the mounts of its storage.
      RunShell(
          "for d in /sys/fs/cgroup/*; do rmdir $d/libpod_parent/* $d/libpod_parent; done "
          "2>/dev/null");
      RunShell(absl::StrCat("grep -o '", path("pod"),
                            "[^ ]*' /proc/self/mounts | sort -r | xargs -r umount -l"));
    }
    RuntimeTest::TearDown();
  }
};

TEST_F(RuntimeDropInTest, PodmanRunsExecsPausesAndStops) {
  MakePodmanImage();
  if (IsSkipped() || HasFatalFailure()) return;
  CommandResult run = Podman("run --rm --network none bb /bin/sh -c 'echo hello; exit 5'");
  EXPECT_EQ(run.code, 5) << run;
  EXPECT_EQ(run.out, "hello\n");
  ASSERT_EQ(Podman("run -d --name p --network none --memory 64m bb /bin/sleep 1000").code, 0);
  CommandResult exec = Podman("exec p /bin/sh -c 'echo inside; exit 3'");
  EXPECT_EQ(exec.code, 3) << exec;
  EXPECT_EQ(exec.out, "inside\n");
  EXPECT_EQ(Podman("pause p").code, 0);
  EXPECT_EQ(Podman("inspect p --format '{{.State.Status}}'").out, "paused\n");
  EXPECT_EQ(Podman("unpause p").code, 0);
  EXPECT_EQ(Podman("update --memory 100m p").code, 0);
  EXPECT_EQ(Podman("kill p").code, 0);
  EXPECT_TRUE(Eventually(
      [&] { return Podman("inspect p --format '{{.State.Status}}'").out == "exited\n"; }));
}

TEST_F(RuntimeDropInTest, PodmanUnderstandsOurFailures) {
  MakePodmanImage();
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_EQ(Podman("run --rm --network none bb /nosuch").code, 127);
  EXPECT_EQ(Podman("run --rm --network none bb /etc").code, 126);
  ASSERT_EQ(Podman("run -d --name p --network none bb /bin/sleep 1000").code, 0);
  EXPECT_EQ(Podman("exec p nosuch").code, 127);
}

TEST_F(RuntimeDropInTest, PodmansSettingsArrive) {
  MakePodmanImage();
  if (IsSkipped() || HasFatalFailure()) return;
  CommandResult result =
      Podman(absl::StrCat("run --rm --network none --read-only --user 1000:1001 --cap-add "
                          "NET_ADMIN --hostname box --env A=b "
                          "--tmpfs /scratch:mode=1777 -v ",
                          path("bundle"),
                          ":/v:ro bb /bin/sh -c 'id; cat /proc/sys/kernel/hostname; "
                          "echo $A; touch /scratch/x && echo wrote; touch /v/x || echo refused'"));
  EXPECT_EQ(result.code, 0) << result;
  EXPECT_THAT(result.out, ::testing::ContainsRegex("uid=1000.* gid=1001"));
  EXPECT_THAT(result.out, HasSubstr("box\nb\nwrote\nrefused\n"));
  CommandResult mapped =
      Podman("run --rm --network none --uidmap 0:100000:65536 bb /bin/cat /proc/self/uid_map");
  EXPECT_EQ(mapped.code, 0) << mapped;
  EXPECT_THAT(mapped.out, HasSubstr("100000"));
}

TEST_F(RuntimeDropInTest, BuildahRunsInAWorkingContainer) {
  if (!Installed("buildah")) GTEST_SKIP() << "needs buildah";
  const std::string buildah = absl::StrCat("buildah --root ", path("bud/root"), " --runroot ",
                                           path("bud/run"), " --storage-driver vfs ");
  CommandResult from = RunShell(buildah + "from scratch");
  ASSERT_EQ(from.code, 0) << from;
  ASSERT_EQ(RunShell(buildah + "copy working-container " + rootfs() + " /").code, 0);
  CommandResult run =
      RunShell(absl::StrCat(buildah, "run --runtime ", program_,
                            " --network none working-container /bin/sh -c 'echo built; exit 6'"));
  EXPECT_THAT(run.out, HasSubstr("built")) << run;
  EXPECT_NE(run.code, 0);
  RunShell(buildah + "rm --all");
  RunShell(absl::StrCat("grep -o '", path("bud"),
                        "[^ ]*' /proc/self/mounts | sort -r | xargs -r umount -l"));
}

TEST_F(RuntimeDropInTest, ContainerdsRuncShimDrivesIt) {
  if (!Installed("containerd") || !Installed("ctr")) GTEST_SKIP() << "needs containerd";
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
  const std::string ctr = absl::StrCat("ctr --address ", base, "/c.sock ");
  ASSERT_TRUE(Eventually([&] { return RunShell(ctr + "version >/dev/null 2>&1").code == 0; }));
  const std::string run = absl::StrCat(ctr, "run --runc-binary ", program_, " --runc-root ",
                                       path("state"), " --cgroup ", cgroup_, "/leaf --rootfs ");
  CommandResult once = RunShell(run + "--rm " + rootfs() + " c1 /bin/sh -c 'echo hello; exit 4'");
  EXPECT_EQ(once.code, 4) << once;
  EXPECT_EQ(once.out, "hello\n");
  ASSERT_EQ(RunShell(run + "-d " + rootfs() + " c2 /bin/sleep 1000").code, 0);
  CommandResult exec = RunShell(ctr + "task exec --exec-id e c2 /bin/sh -c 'echo inside; exit 6'");
  EXPECT_EQ(exec.code, 6) << exec;
  EXPECT_EQ(exec.out, "inside\n");
  EXPECT_EQ(RunShell(ctr + "task pause c2").code, 0);
  EXPECT_THAT(RunShell(ctr + "task ls").out, HasSubstr("PAUSED"));
  EXPECT_EQ(RunShell(ctr + "task resume c2").code, 0);
  EXPECT_THAT(RunShell(ctr + "task metrics c2").out, HasSubstr("memory"));
  EXPECT_EQ(RunShell(ctr + "task kill -s KILL c2").code, 0);
  EXPECT_TRUE(Eventually(
      [&] { return RunShell(ctr + "task ls").out.find("STOPPED") != std::string::npos; }));
  RunShell(ctr + "task rm c2; " + ctr + "container rm c2");
  CommandResult missing = RunShell(run + "--rm " + rootfs() + " c3 /nosuch");
  EXPECT_NE(missing.code, 0);
  EXPECT_THAT(missing.err, HasSubstr("no such file or directory"));
  daemon->KillAndReap();
}

TEST_F(RuntimeDropInTest, DockerRunsItBesideItsOwn) {
  if (!Installed("dockerd") || !Installed("docker")) GTEST_SKIP() << "needs docker.io";
  const std::string base = path("d");
  ASSERT_OK(sys::MakeDirectories(base, 0711));
  auto daemon = sys::Spawn(
      {.argv = {"/usr/sbin/dockerd", "--data-root", base + "/data", "--exec-root", base + "/exec",
                "--pidfile", base + "/pid", "--host", "unix://" + base + "/s", "--bridge", "none",
                "--iptables=false", "--storage-driver", "vfs", "--log-level", "fatal",
                "--add-runtime", "gantry=" + program_},
       .environment = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}});
  ASSERT_OK(daemon);
  const std::string docker = absl::StrCat("docker --host unix://", base, "/s ");
  ASSERT_TRUE(Eventually([&] { return RunShell(docker + "version >/dev/null 2>&1").code == 0; }));
  ASSERT_EQ(RunShell(absl::StrCat("tar -C ", rootfs(), " -c . | ", docker, "import - bb")).code, 0);
  const std::string run = docker + "run --runtime gantry --network none ";
  CommandResult once =
      RunShell(run + "--rm bb /bin/sh -c 'echo hello; grep Seccomp: /proc/self/status; exit 4'");
  EXPECT_EQ(once.code, 4) << once;
  EXPECT_EQ(once.out, "hello\nSeccomp:\t2\n");
  const CommandResult missing = RunShell(run + "--rm bb nosuch");
  EXPECT_EQ(missing.code, 127) << missing;
  const CommandResult directory = RunShell(run + "--rm bb /etc");
  EXPECT_EQ(directory.code, 126) << directory;
  CommandResult detached =
      RunShell(run + "-d --name dd --memory 64m --cpus 0.5 --pids-limit 50 bb /bin/sleep 1000");
  ASSERT_EQ(detached.code, 0) << detached;
  CommandResult exec =
      RunShell(docker + "exec -u 5:6 -w /tmp -e A=b dd /bin/sh -c 'id -u; pwd; echo $A; exit 3'");
  EXPECT_EQ(exec.code, 3) << exec;
  EXPECT_EQ(exec.out, "5\n/tmp\nb\n");
  EXPECT_EQ(RunShell(docker + "pause dd").code, 0);
  EXPECT_EQ(RunShell(docker + "inspect dd --format '{{.State.Status}}'").out, "paused\n");
  EXPECT_EQ(RunShell(docker + "unpause dd").code, 0);
  EXPECT_EQ(RunShell(docker + "update --memory 100m --memory-swap 100m dd").code, 0);
  EXPECT_EQ(RunShell(docker + "kill dd").code, 0);
  EXPECT_TRUE(Eventually([&] {
    return RunShell(docker + "inspect dd --format '{{.State.Status}} {{.State.ExitCode}}'").out ==
           "exited 137\n";
  }));
  EXPECT_EQ(RunShell(docker + "rm -f dd").code, 0);
  EXPECT_OK(daemon->Signal(SIGTERM));
  EXPECT_OK(daemon->Wait(absl::Seconds(20)));
  RunShell(
      absl::StrCat("grep -o '", base, "[^ ]*' /proc/self/mounts | sort -r | xargs -r umount -l"));
}

TEST_F(RuntimeDropInTest, AnOrdinaryUserRunsAContainer) {
  if (!Installed("setpriv")) GTEST_SKIP() << "needs setpriv";
  // The program where that user may execute it.
  ASSERT_EQ(RunShell(absl::StrCat("cp ", program_, " ", path("gantry-runtime"), " && chmod 755 ",
                                  path("gantry-runtime"), " && chown -R 1000:1000 ", path("bundle"),
                                  " && mkdir ", path("xdg"), " && chown 1000:1000 ", path("xdg")))
                .code,
            0);
  const std::string user = absl::StrCat("cd ", path("bundle"),
                                        " && setpriv --reuid 1000 --regid 1000 --clear-groups env "
                                        "XDG_RUNTIME_DIR=",
                                        path("xdg"), " ", path("gantry-runtime"), " ");
  CommandResult example = RunShell(user + "spec --rootless");
  ASSERT_EQ(example.code, 0) << example;
  auto bytes = sys::ReadFile(path("bundle/config.json"));
  ASSERT_OK(bytes);
  auto spec = oci::ParseSpec(*bytes);
  ASSERT_OK(spec);
  spec->process->terminal = false;
  spec->process->args = {"/bin/sh", "-c", "id; cat /proc/self/uid_map; exit 8"};
  ASSERT_OK(sys::WriteFileAtomically(path("bundle/config.json"), oci::WriteSpec(*spec), 0644));
  CommandResult result = RunShell(user + "run rootless");
  EXPECT_EQ(result.code, 8) << result;
  EXPECT_THAT(result.out, HasSubstr("uid=0 gid=0"));
  EXPECT_THAT(result.out, HasSubstr("1000"));
}

}  // namespace
}  // namespace gantry::testing
