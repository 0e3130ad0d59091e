// Our shim under Debian's containerd: a private instance, driven with ctr.
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "lib/sys/process.h"
#include "lib/sys/socket.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::shim {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Output {
  int code = -1;
  std::string text;  // stdout and stderr.
};

class ContainerdTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    if (!sys::Exists("/usr/bin/containerd") || !sys::Exists("/usr/bin/ctr")) {
      GTEST_SKIP() << "needs Debian's containerd (apt install containerd)";
    }
    directory_.emplace(sys::TempDir::Create("/tmp").value());
    const std::string& root = directory_->path();
    for (const char* name : {"bin", "proc", "dev", "sys", "tmp", "etc"}) {
      ASSERT_OK(sys::MakeDirectories(absl::StrCat(root, "/rootfs/", name), 0755));
    }
    ASSERT_OK(sys::WriteFileAtomically(absl::StrCat(root, "/rootfs/bin/busybox"),
                                       sys::ReadFile("/bin/busybox").value(), 0755));
    for (const char* applet :
         {"sh", "echo", "sleep", "cat", "true", "id", "stty", "env", "tty", "dd"}) {
      ASSERT_EQ(::symlink("busybox", absl::StrCat(root, "/rootfs/bin/", applet).c_str()), 0);
    }
    // The runtime runs as root, but a container's user wants to pass through here, too.
    ASSERT_EQ(::chmod(root.c_str(), 0711), 0);
    ASSERT_OK(sys::WriteFileAtomically(
        absl::StrCat(root, "/config.toml"),
        absl::StrCat(
            "version = 2\nroot = \"", root, "/root\"\nstate = \"", root,
            "/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"",
            root, "/c.sock\"\n[ttrpc]\naddress = \"", root, "/c.sock.ttrpc\"\n")));
    StartDaemon();
  }

  void TearDown() override {
    if (!directory_.has_value()) return;
    // Whatever a failed test left runs no longer than it.
    for (const std::string& id : ids_) {
      (void)Ctr({"tasks", "kill", "-s", "SIGKILL", "-a", id});
      (void)Ctr({"tasks", "delete", "-f", id});
      (void)Ctr({"containers", "delete", id});
    }
    daemon_.KillAndReap();
    (void)sys::UnmountTree(absl::StrCat(directory_->path(), "/state"));
  }

  void StartDaemon() {
    const char* bin = ::getenv("GANTRY_BIN");
    sys::UniqueFd log =
        sys::Open(absl::StrCat(directory_->path(), "/log"), O_WRONLY | O_CREAT | O_APPEND, 0600)
            .value();
    sys::SpawnOptions spawn;
    spawn.argv = {"/usr/bin/containerd", "-c", absl::StrCat(directory_->path(), "/config.toml")};
    spawn.environment = {absl::StrCat("PATH=", bin == nullptr ? "build/dev/bin" : bin,
                                      ":/usr/sbin:/usr/bin:/sbin:/bin")};
    spawn.descriptors = {{log.get(), 1}, {log.get(), 2}};
    daemon_ = sys::Spawn(spawn).value();
    const std::string socket = absl::StrCat(directory_->path(), "/c.sock");
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (Ctr({"version"}).code != 0) {
      ASSERT_LT(absl::Now(), deadline) << Log();
    }
  }

  Output Ctr(std::vector<std::string> words) {
    words.insert(words.begin(),
                 {"/usr/bin/ctr", "--address", absl::StrCat(directory_->path(), "/c.sock")});
    return Command(std::move(words));
  }

  static Output Command(std::vector<std::string> argv) {
    int out[2];
    EXPECT_EQ(::pipe2(out, O_CLOEXEC), 0);
    sys::UniqueFd read_end(out[0]), write_end(out[1]);
    sys::SpawnOptions spawn;
    spawn.argv = std::move(argv);
    spawn.environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb"};
    spawn.descriptors = {{write_end.get(), 1}, {write_end.get(), 2}};
    sys::Child child = sys::Spawn(spawn).value();
    write_end.Reset();
    Output output;
    output.text = sys::ReadAll(read_end).value_or("");
    output.code = child.Wait(absl::Seconds(60)).value().code;
    return output;
  }

  Output Run(const std::string& id, std::vector<std::string> flags,
             const std::vector<std::string>& args) {
    ids_.push_back(id);
    std::vector<std::string> words = {"run", "--runtime", "io.containerd.gantry.v2"};
    words.insert(words.end(), flags.begin(), flags.end());
    words.insert(words.end(), {"--rootfs", absl::StrCat(directory_->path(), "/rootfs"), id});
    words.insert(words.end(), args.begin(), args.end());
    return Ctr(words);
  }

  std::string Log() const {
    return sys::ReadFile(absl::StrCat(directory_->path(), "/log")).value_or("");
  }
  bool WaitForStatus(const std::string& id, const std::string& status) {
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (absl::Now() < deadline) {
      const Output list = Ctr({"tasks", "ls"});
      for (absl::string_view line : absl::StrSplit(list.text, '\n')) {
        if (absl::StartsWith(line, id) && absl::StrContains(line, status)) return true;
      }
    }
    return false;
  }

  std::string BundleOf(const std::string& id) const {
    return absl::StrCat(directory_->path(), "/state/io.containerd.runtime.v2.task/default/", id);
  }
  // The shim is init's parent. (The peer of a listening socket's connection is who called listen():
  // `start`.)
  pid_t ShimOf(const std::string& id) const {
    const std::string init = sys::ReadFile(absl::StrCat(BundleOf(id), "/init.pid")).value_or("0");
    const std::string stat = sys::ReadFile(absl::StrCat("/proc/", init, "/stat")).value_or(") ? 0");
    const std::vector<std::string> fields = absl::StrSplit(stat.substr(stat.rfind(')') + 2), ' ');
    return atoi(fields[1].c_str());
  }

  std::optional<sys::TempDir> directory_;
  sys::Child daemon_;
  std::vector<std::string> ids_;
};

TEST_F(ContainerdTest, RunPrintsAndReturnsTheExitCode) {
  const Output hello = Run("a", {"--rm"}, {"echo", "hello"});
  EXPECT_EQ(hello.code, 0);
  EXPECT_EQ(hello.text, "hello\n");
  EXPECT_EQ(Run("b", {"--rm"}, {"sh", "-c", "echo problem >&2; exit 42"}).code, 42);
  const Output environment =
      Run("c", {"--rm", "--env", "A=b", "--cwd", "/tmp"}, {"sh", "-c", "echo $A $PWD"});
  EXPECT_EQ(environment.text, "b /tmp\n");
  EXPECT_EQ(sys::ListDirectory(
                absl::StrCat(directory_->path(), "/state/io.containerd.runtime.v2.task/default"))
                .value_or(std::vector<std::string>())
                .size(),
            0u);
}

TEST_F(ContainerdTest, EverydayFormsOfRun) {
  EXPECT_EQ(Run("m", {"--rm", "--memory-limit", "33554432", "--cpus", "0.5"}, {"true"}).code, 0);
  EXPECT_EQ(Run("h", {"--rm", "--net-host"}, {"true"}).code, 0);
  EXPECT_EQ(Run("r", {"--rm", "--read-only"}, {"sh", "-c", "echo x > /tmp/x"}).code, 1);
  EXPECT_EQ(Run("p", {"--rm", "--privileged"}, {"true"}).code, 0);
  EXPECT_EQ(Run("s", {"--rm", "--seccomp"}, {"true"}).code, 0);
  EXPECT_THAT(Run("x", {"--rm"}, {"/no/such/program"}).text, HasSubstr("/no/such/program"));
  EXPECT_THAT(Run("mount", {"--rm", "--mount", "type=bind,src=/usr,dst=/mnt,options=rbind:ro"},
                  {"sh", "-c", "test -d /mnt/bin && echo there"})
                  .text,
              HasSubstr("there"));
}

TEST_F(ContainerdTest, MoreEverydayFormsOfRun) {
  EXPECT_EQ(Run("u", {"--rm", "--env", "A=1", "--env", "B=2"}, {"sh", "-c", "echo $A$B"}).text,
            "12\n");
  EXPECT_EQ(Run("np", {"--rm", "--no-pivot"}, {"echo", "moved"}).text, "moved\n");
  EXPECT_EQ(Run("cap", {"--rm", "--cap-drop", "CAP_SYS_CHROOT"}, {"true"}).code, 0);
  const std::string pid_file = absl::StrCat(directory_->path(), "/pid");
  EXPECT_EQ(Run("pf", {"--rm", "--pid-file", pid_file}, {"true"}).code, 0);
  EXPECT_GT(atoi(sys::ReadFile(pid_file).value_or("").c_str()), 0);
  EXPECT_EQ(Run("maps", {"--rm", "--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000"},
                {"cat", "/proc/self/uid_map"})
                .code,
            0);
}

// ctr wants a terminal of its own, which script(1) gives it.
TEST_F(ContainerdTest, ATerminalIsOneInside) {
  const std::string ctr = absl::StrCat("/usr/bin/ctr --address ", directory_->path(), "/c.sock ");
  const std::string run =
      absl::StrCat(ctr, "run --rm -t --runtime io.containerd.gantry.v2 --rootfs ",
                   directory_->path(), "/rootfs t sh -c 'tty; exit 7'");
  const Output inside = Command({"/usr/bin/script", "-qec", run, "/dev/null"});
  EXPECT_THAT(inside.text, HasSubstr("/dev/pts/0"));
  EXPECT_EQ(inside.code, 7);
  ASSERT_EQ(Run("te", {"--detach"}, {"sleep", "1000"}).code, 0);
  const Output exec = Command({"/usr/bin/script", "-qec",
                               absl::StrCat(ctr, "tasks exec -t --exec-id e te tty"), "/dev/null"});
  EXPECT_THAT(exec.text, HasSubstr("/dev/pts/"));
  EXPECT_EQ(exec.code, 0);
}

TEST_F(ContainerdTest, ACheckpointIsRefusedAndTheContainerGoesOn) {
  ASSERT_EQ(Run("cp", {"--detach"}, {"sleep", "1000"}).code, 0);
  const Output refused = Ctr({"tasks", "checkpoint", "cp"});
  EXPECT_NE(refused.code, 0);
  EXPECT_THAT(refused.text, HasSubstr("does not drive CRIU"));
  EXPECT_TRUE(WaitForStatus("cp", "RUNNING"));
}

TEST_F(ContainerdTest, LackOfMemoryIsTold) {
  EXPECT_EQ(Run("oom", {"--rm", "--memory-limit", "16777216"},
                {"dd", "if=/dev/zero", "of=/dev/null", "bs=300M", "count=1"})
                .code,
            137);
}

TEST_F(ContainerdTest, APodSharesOneShim) {
  const std::vector<std::string> pod = {"--detach", "--annotation",
                                        "io.kubernetes.cri.sandbox-id=pod1"};
  for (const char* id : {"pause", "app", "side"}) {
    ASSERT_EQ(Run(id, pod, {"sleep", "1000"}).code, 0) << Log();
  }
  ASSERT_EQ(Run("alone", {"--detach"}, {"sleep", "1000"}).code, 0);
  EXPECT_EQ(ShimOf("pause"), ShimOf("app"));
  EXPECT_EQ(ShimOf("pause"), ShimOf("side"));
  EXPECT_NE(ShimOf("pause"), ShimOf("alone"));
  const pid_t shim = ShimOf("pause");

  // The first of them, whose `start` made the shim, goes first.
  EXPECT_EQ(Ctr({"tasks", "delete", "-f", "pause"}).code, 0);
  EXPECT_EQ(Ctr({"tasks", "exec", "--exec-id", "e", "app", "echo", "on"}).text, "on\n");
  daemon_.KillAndReap();
  StartDaemon();
  EXPECT_TRUE(WaitForStatus("app", "RUNNING")) << Log();
  EXPECT_TRUE(WaitForStatus("side", "RUNNING")) << Log();
  EXPECT_EQ(Ctr({"tasks", "delete", "-f", "app"}).code, 0);
  EXPECT_EQ(::kill(shim, 0), 0);

  EXPECT_EQ(Ctr({"tasks", "delete", "-f", "side"}).code, 0);

  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (::kill(shim, 0) == 0 && absl::Now() < deadline) ::usleep(2000);
  EXPECT_NE(::kill(shim, 0), 0) << "the shim outlived its pod";
}

TEST_F(ContainerdTest, OutputGoesWhereItIsAskedTo) {
  const std::string path = absl::StrCat(directory_->path(), "/out/log.txt");
  EXPECT_EQ(Run("f", {"--rm", "--log-uri", absl::StrCat("file://", path)}, {"echo", "kept"}).code,
            0);
  EXPECT_EQ(sys::ReadFile(path).value_or("nothing"), "kept\n");
  EXPECT_EQ(Run("n", {"--rm", "--null-io"}, {"echo", "gone"}).text, "");
  const std::string docker = absl::StrCat(directory_->path(), "/docker.log");
  EXPECT_EQ(
      Run("g", {"--rm", "--log-uri", absl::StrCat("gantry-log://", docker)}, {"echo", "json"}).code,
      0);
  EXPECT_THAT(sys::ReadFile(docker).value_or("nothing"), HasSubstr("{\"log\":\"json\\n\""));
}

TEST_F(ContainerdTest, TwoHundredContainersAtOnce) {
  constexpr int kCount = 200;
  for (int i = 0; i < kCount; ++i) {
    ASSERT_EQ(Run(absl::StrCat("c", i), {"--detach", "--null-io"}, {"sleep", "1000"}).code, 0)
        << i << Log();
  }
  const std::string list = Ctr({"tasks", "ls"}).text;
  int running = 0;
  for (absl::string_view line : absl::StrSplit(list, '\n'))
    running += absl::StrContains(line, "RUNNING");
  EXPECT_EQ(running, kCount);
  for (int i = 0; i < kCount; ++i) {
    ASSERT_EQ(Ctr({"tasks", "delete", "-f", absl::StrCat("c", i)}).code, 0) << i;
    ASSERT_EQ(Ctr({"containers", "delete", absl::StrCat("c", i)}).code, 0) << i;
  }
  ids_.clear();
}

TEST_F(ContainerdTest, ADetachedContainerIsListedExecutedInPausedAndKilled) {
  ASSERT_EQ(Run("d", {"--detach"}, {"sleep", "1000"}).code, 0);
  EXPECT_TRUE(WaitForStatus("d", "RUNNING"));
  EXPECT_EQ(Ctr({"tasks", "exec", "--exec-id", "e", "d", "echo", "inside"}).text, "inside\n");
  EXPECT_EQ(Ctr({"tasks", "exec", "--exec-id", "f", "d", "sh", "-c", "exit 9"}).code, 9);
  EXPECT_THAT(Ctr({"tasks", "ps", "d"}).text, HasSubstr("PID"));
  EXPECT_THAT(Ctr({"tasks", "metrics", "d"}).text, HasSubstr("memory"));
  ASSERT_EQ(Ctr({"tasks", "pause", "d"}).code, 0);
  EXPECT_TRUE(WaitForStatus("d", "PAUSED"));
  ASSERT_EQ(Ctr({"tasks", "resume", "d"}).code, 0);
  EXPECT_TRUE(WaitForStatus("d", "RUNNING"));
  ASSERT_EQ(Ctr({"tasks", "kill", "-s", "SIGKILL", "d"}).code, 0);
  EXPECT_TRUE(WaitForStatus("d", "STOPPED"));
  EXPECT_THAT(Ctr({"tasks", "delete", "d"}).text, HasSubstr("137"));
  EXPECT_EQ(Ctr({"containers", "delete", "d"}).code, 0);
}

TEST_F(ContainerdTest, ContainersOutliveTheDaemon) {
  ASSERT_EQ(Run("stays", {"--detach"}, {"sleep", "1000"}).code, 0);
  ASSERT_EQ(Run("ends", {"--detach"}, {"sh", "-c", "sleep 1; exit 5"}).code, 0);
  daemon_.KillAndReap();

  ::usleep(1'300'000);  // One of them ends while nobody watches.
  StartDaemon();

  EXPECT_TRUE(WaitForStatus("stays", "RUNNING")) << Log();
  EXPECT_TRUE(WaitForStatus("ends", "STOPPED")) << Log();
  EXPECT_EQ(Ctr({"tasks", "exec", "--exec-id", "e", "stays", "echo", "still here"}).text,
            "still here\n");
  EXPECT_THAT(Ctr({"tasks", "delete", "ends"}).text, HasSubstr("exit code 5"));
}

TEST_F(ContainerdTest, AKilledShimIsCleanedUpAfter) {
  ASSERT_EQ(Run("k", {"--detach"}, {"sleep", "1000"}).code, 0);
  const std::string bundle = BundleOf("k");
  const std::string address = sys::ReadFile(absl::StrCat(bundle, "/address")).value();
  const std::string init = sys::ReadFile(absl::StrCat(bundle, "/init.pid")).value();
  ASSERT_EQ(::kill(ShimOf("k"), SIGKILL), 0);

  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (sys::Exists(bundle) && absl::Now() < deadline) ::usleep(2000);

  EXPECT_FALSE(sys::Exists(bundle)) << Log();
  EXPECT_FALSE(sys::Exists(address.substr(7)));
  EXPECT_THAT(sys::ReadFile("/proc/self/mountinfo").value(), Not(HasSubstr(bundle)));
  EXPECT_THAT(sys::ReadFile(absl::StrCat("/proc/", init, "/stat")).value_or(") Z"),
              HasSubstr(") Z"));
}

}  // namespace
}  // namespace gantry::shim
