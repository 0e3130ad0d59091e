// kill -9 of the runtime between any two steps: `delete --force` finds and removes everything.
#include <signal.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/cgroup/cgroup.h"
#include "lib/sys/file.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::IsEmpty;

struct Step {
  std::string failpoint;
  int hit;
};

class RuntimeCrashTest : public RuntimeTest, public ::testing::WithParamInterface<Step> {
 protected:
  void SetUp() override {
    RuntimeTest::SetUp();
    auto layout = cgroup::Layout::Detect();
    ASSERT_OK(layout);
    const bool per_hierarchy = absl::StartsWith(GetParam().failpoint, "cgroup.create.");
    if (per_hierarchy && static_cast<size_t>(GetParam().hit) > layout->hierarchies.size()) {
      GTEST_SKIP() << "needs as many cgroup v1 hierarchies";
    }
  }
  // Processes whose root directory is our rootfs.
  bool AnyProcessLeft() {
    auto names = sys::ListDirectory("/proc");
    for (const std::string& name : *names) {
      if (name[0] < '0' || name[0] > '9') continue;
      char root[4096] = {};
      (void)!::readlink(absl::StrCat("/proc/", name, "/root").c_str(), root, sizeof root - 1);
      if (rootfs() == root) return true;
      auto cgroups = sys::ReadFile(absl::StrCat("/proc/", name, "/cgroup"));
      if (cgroups.ok() && absl::StrContains(*cgroups, cgroup_)) return true;
    }
    return false;
  }
};

TEST_P(RuntimeCrashTest, LeavesNothingThatDeleteDoesNotFind) {
  spec_.process->args = {"/bin/sleep", "1000"};
  WriteConfig();

  RunShell(absl::StrCat("GANTRY_FAILPOINTS='", GetParam().failpoint, "=kill@", GetParam().hit, "' ",
                        program_, " --root ", path("state"), " create --bundle ", path("bundle"),
                        " c </dev/null >/dev/null 2>&1"));

  CommandResult deleted = Runtime({"delete", "--force", "c"});
  EXPECT_EQ(deleted.code, 0) << deleted;
  EXPECT_FALSE(sys::Exists(path("state/c")));
  EXPECT_THAT(CgroupDirectories(), IsEmpty());
  EXPECT_TRUE(Eventually([&] { return !AnyProcessLeft(); }));
  EXPECT_EQ(RunScript("exit 4").code, 4) << "the id and the bundle can be used again";
}

INSTANTIATE_TEST_SUITE_P(
    Create, RuntimeCrashTest,
    ::testing::Values(
        Step{"runtime.create.before_claim", 1}, Step{"runtime.record.before_write", 1},
        Step{"runtime.record.before_replace", 1}, Step{"runtime.create.before_cgroup", 1},
        Step{"cgroup.create.before_mkdir", 1}, Step{"cgroup.create.before_mkdir", 5},
        Step{"cgroup.apply.before_limits", 1}, Step{"runtime.create.before_clone", 1},
        Step{"runtime.rootfs.before_attach", 1}, Step{"runtime.rootfs.before_mount", 3},
        Step{"runtime.rootfs.before_device", 2}, Step{"runtime.rootfs.before_cover", 1},
        Step{"runtime.rootfs.before_pivot", 1}, Step{"runtime.process.before_limits", 1},
        Step{"runtime.process.before_ids", 1}, Step{"runtime.process.before_capabilities", 1},
        Step{"runtime.create.before_acknowledge", 1}),
    [](const auto& info) {
      std::string name = absl::StrCat(info.param.failpoint, "_", info.param.hit);
      for (char& c : name) c = c == '.' ? '_' : c;
      return name;
    });

class RuntimeTornRecordTest : public RuntimeTest {};

TEST_F(RuntimeTornRecordTest, IsRemovedByForceOnly) {
  ASSERT_OK(sys::MakeDirectories(path("state/c"), 0700));
  ASSERT_OK(
      sys::WriteFileAtomically(path("state/c/state.json"), "{\"version\":1,\"id\":\"c\",\"bun"));
  CommandResult refused = Runtime({"delete", "c"});
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, ::testing::HasSubstr("remove it with delete --force"));
  EXPECT_EQ(Runtime({"delete", "--force", "c"}).code, 0);
  EXPECT_FALSE(sys::Exists(path("state/c")));
}

class RuntimeDeleteCrashTest : public RuntimeCrashTest {};

TEST_P(RuntimeDeleteCrashTest, ADeleteThatDiesIsFinishedByTheNext) {
  StartScript("c", "sleep 1000");
  RunShell(absl::StrCat("GANTRY_FAILPOINTS='", GetParam().failpoint, "=kill@", GetParam().hit, "' ",
                        program_, " --root ", path("state"), " delete --force c"));
  EXPECT_EQ(Runtime({"delete", "--force", "c"}).code, 0);
  EXPECT_FALSE(sys::Exists(path("state/c")));
  EXPECT_THAT(CgroupDirectories(), IsEmpty());
  EXPECT_TRUE(Eventually([&] { return !AnyProcessLeft(); }));
}

INSTANTIATE_TEST_SUITE_P(Delete, RuntimeDeleteCrashTest,
                         ::testing::Values(Step{"runtime.delete.before_kill", 1},
                                           Step{"runtime.delete.before_cgroup", 1},
                                           Step{"cgroup.remove.before_rmdir", 3},
                                           Step{"runtime.delete.before_state", 1}),
                         [](const auto& info) {
                           std::string name =
                               absl::StrCat(info.param.failpoint, "_", info.param.hit);
                           for (char& c : name) c = c == '.' ? '_' : c;
                           return name;
                         });

class RuntimeErrorTest : public RuntimeCrashTest {};

TEST_P(RuntimeErrorTest, AFailedStepLeavesNothingBehind) {
  spec_.process->args = {"/bin/sleep", "1000"};
  WriteConfig();
  CommandResult result = RunShell(absl::StrCat(
      "GANTRY_FAILPOINTS='", GetParam().failpoint, "=error@", GetParam().hit, "' ", program_,
      " --root ", path("state"), " create --bundle ", path("bundle"), " c </dev/null 2>&1"));
  EXPECT_EQ(result.code, 1);
  EXPECT_FALSE(sys::Exists(path("state/c")));
  EXPECT_THAT(CgroupDirectories(), IsEmpty());
  EXPECT_FALSE(AnyProcessLeft());
}

INSTANTIATE_TEST_SUITE_P(
    Create, RuntimeErrorTest,
    ::testing::Values(
        Step{"runtime.create.before_claim", 1}, Step{"runtime.record.before_write", 1},
        Step{"runtime.record.before_replace", 1}, Step{"runtime.create.before_cgroup", 1},
        Step{"cgroup.create.before_mkdir", 5}, Step{"cgroup.apply.before_limits", 1},
        Step{"runtime.create.before_clone", 1}, Step{"runtime.rootfs.before_mount", 3},
        Step{"runtime.rootfs.before_pivot", 1}, Step{"runtime.process.before_capabilities", 1},
        Step{"runtime.create.before_acknowledge", 1}),
    [](const auto& info) {
      std::string name = absl::StrCat(info.param.failpoint, "_", info.param.hit);
      for (char& c : name) c = c == '.' ? '_' : c;
      return name;
    });

}  // namespace
}  // namespace gantry::testing
