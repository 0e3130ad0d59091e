// The shim fails, or is killed, at every failpoint it has; then `delete` must leave nothing: no
// process, no mount, no cgroup, no socket.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "lib/sys/process.h"
#include "lib/testing/status_matchers.h"
#include "shim/testing/shim_harness.h"

namespace gantry::shim {
namespace {

using testing::BuiltBinary;
using ::testing::IsEmpty;
using testing::ShimHarness;

// Not on the way of a serving shim with our own runtime.
const std::set<std::string> kElsewhere = {"shim.cleanup.before=kill", "shim.runtime.command=kill",
                                          "shim.io.start_logger=kill"};

// All failpoints of the shim, as it lists them itself, each with `error` and with `kill`. Nothing
// when the binary is not there: TheShimNamesItsFailpoints says so.
std::vector<std::string> Specifications() {
  std::vector<std::string> specifications;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return specifications;
  sys::UniqueFd output(ends[0]), program_end(ends[1]);
  sys::SpawnOptions spawn;
  spawn.argv = {BuiltBinary("containerd-shim-gantry-v2"), "-failpoints"};
  spawn.descriptors = {{program_end.get(), 1}};
  absl::StatusOr<sys::Child> child = sys::Spawn(spawn);
  program_end.Reset();
  if (!child.ok()) return specifications;
  const std::string names = sys::ReadAll(output).value_or("");
  (void)child->Wait(absl::Seconds(10));
  for (absl::string_view name : absl::StrSplit(names, '\n', absl::SkipEmpty())) {
    for (const char* action : {"error", "kill"}) {
      specifications.push_back(absl::StrCat(name, "=", action));
    }
  }
  return specifications;
}

TEST(ShimFaultList, TheShimNamesItsFailpoints) { EXPECT_GT(Specifications().size(), 80u); }

class ShimFaultTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { REQUIRE_ROOT(); }

  // A whole life, as far as it goes.
  void Live() {
    if (!shim_.StartShim("web").ok()) return;
    std::string payload;
    pb::Writer writer(&payload);
    writer.String(1, "web");
    writer.String(2, shim_.BundleOf("web"));
    WriteMount(writer, 3, {"bind", image_, "", {"rbind", "ro"}});
    writer.String(6, absl::StrCat("gantry-log://", shim_.root(), "/c.log?max-size=100&max-file=2"));
    if (!shim_.Call("Create", payload).ok()) return;
    if (!shim_.Start("web").ok()) return;
    (void)shim_.Exec(
        "web", "e", {"sh", "-c", "echo one; echo two; echo three"},
        {"", absl::StrCat("gantry-log://", shim_.root(), "/e.log?max-size=100&max-file=2"), ""});
    if (shim_.Start("web", "e").ok()) (void)shim_.Wait("web", "e");
    (void)shim_.Delete("web", "e");
    (void)shim_.Simple("Pause", "web");
    (void)shim_.Simple("Resume", "web");
    (void)shim_.Kill("web", SIGKILL);
    if (!shim_.Call("Wait", IdOnly(), absl::Seconds(5)).ok()) return;
    if (!shim_.Delete("web").ok()) return;
    LiveAsSandbox();
  }
  // The same bundle once more, as the process of a pod.
  void LiveAsSandbox() {
    const auto call = [this](const char* method, const std::string& payload) {
      return shim_.client()
          .Call("containerd.runtime.sandbox.v1.Sandbox", method, payload, {}, absl::Seconds(15))
          .ok();
    };
    std::string payload;
    pb::Writer writer(&payload);
    writer.String(1, "web");
    writer.String(2, shim_.BundleOf("web"));
    WriteMount(writer, 3, {"bind", image_, "", {"rbind", "ro"}});
    if (!call("CreateSandbox", payload) || !call("StartSandbox", IdOnly())) return;
    if (call("StopSandbox", IdOnly())) (void)call("ShutdownSandbox", IdOnly());
  }
  static std::string IdOnly() {
    std::string payload;
    pb::Writer(&payload).String(1, "web");
    return payload;
  }

  ShimHarness shim_{BuiltBinary("containerd-shim-gantry-v2")};
  std::string image_;
};

TEST_P(ShimFaultTest, DeleteLeavesNothing) {
  ASSERT_OK(shim_.MakeBundle("web", {"sh", "-c", "echo one; echo two; echo three; sleep 1000"}));
  image_ = absl::StrCat(shim_.root(), "/image");
  ASSERT_EQ(::rename(absl::StrCat(shim_.BundleOf("web"), "/rootfs").c_str(), image_.c_str()), 0);
  ASSERT_OK(sys::MakeDirectories(absl::StrCat(shim_.BundleOf("web"), "/rootfs"), 0711));
  shim_.SetFailpoints(GetParam());

  Live();

  // A daemon ends the shim before it runs `delete`; the one that still serves is killed here.
  const absl::StatusOr<int> shim_pid = shim_.ShimPid("web");
  if (absl::StartsWith(GetParam(), "shim.") && absl::EndsWith(GetParam(), "=kill") &&
      kElsewhere.count(GetParam()) == 0) {
    EXPECT_FALSE(shim_pid.ok()) << "the failpoint was not hit";
  }
  if (shim_pid.ok() && *shim_pid > 0) {
    const sys::UniqueFd pidfd = sys::OpenPidfd(*shim_pid).value();
    ASSERT_OK(sys::SignalPidfd(pidfd, SIGKILL));
    pollfd ended = {pidfd.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&ended, 1, 10'000), 1);
  }
  shim_.SetFailpoints("");
  EXPECT_OK(shim_.RunDelete("web"));
  EXPECT_OK(shim_.RunDelete("web"));

  EXPECT_THAT(sys::MountPointsBelow(shim_.root()).value(), IsEmpty());
  EXPECT_THAT(shim_.CgroupsOf("web"), IsEmpty());
  if (!shim_.address().empty()) {
    EXPECT_FALSE(sys::Exists(shim_.address().substr(7)));
  }
  const absl::StatusOr<std::string> init =
      sys::ReadFile(absl::StrCat(shim_.BundleOf("web"), "/init.pid"));
  int pid = 0;
  if (init.ok() && absl::SimpleAtoi(*init, &pid)) {
    const std::string stat = sys::ReadFile(absl::StrCat("/proc/", pid, "/stat")).value_or(") Z");
    // Not running; whoever inherited it may not have reaped it yet. A pid used anew is no `sh`.
    EXPECT_TRUE(absl::StrContains(stat, ") Z") || !absl::StrContains(stat, "(sh)")) << stat;
  }
}

INSTANTIATE_TEST_SUITE_P(
    EveryFailpoint, ShimFaultTest, ::testing::ValuesIn(Specifications()),
    [](const ::testing::TestParamInfo<std::string>& info) {
      return absl::StrReplaceAll(info.param, {{".", "_"}, {"=", "_"}, {"-", "_"}});
    });

}  // namespace
}  // namespace gantry::shim
