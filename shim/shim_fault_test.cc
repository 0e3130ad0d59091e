// The shim fails, or is killed, at every failpoint it has; then `delete` must leave nothing: no
// process, no mount, no cgroup, no socket.
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
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

// The shim's own; this test links only part of its code, so that List() does not know them all.
const char* const kOwn[] = {
    "shim.cleanup.before",       "shim.create.after_mount",
    "shim.create.after_runtime", "shim.create.before_mount",
    "shim.delete.before",        "shim.delete.before_unmount",
    "shim.exec.before",          "shim.exit.before_publish",
    "shim.exit.before_record",   "shim.io.open",
    "shim.io.start_logger",      "shim.log.open",
    "shim.log.rotate",           "shim.log.write",
    "shim.publish.send",         "shim.runtime.command",
    "shim.start.after",          "shim.start.before",
    "shim.start.before_answer",  "shim.start.before_spawn",
};

// All failpoints of the shim, each with `error` and with `kill`.
std::vector<std::string> Specifications() {
  std::set<std::string> names(std::begin(kOwn), std::end(kOwn));
  for (const std::string& name : failpoint::List()) names.insert(name);
  std::vector<std::string> specifications;
  for (const std::string& name : names) {
    for (const char* action : {"error", "kill"}) {
      specifications.push_back(absl::StrCat(name, "=", action));
    }
  }
  return specifications;
}

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
    (void)shim_.Delete("web");
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
