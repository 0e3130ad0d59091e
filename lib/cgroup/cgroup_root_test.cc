// On the machine's own cgroups, in directories of this test's own.
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/identifier.h"
#include "lib/cgroup/cgroup.h"
#include "lib/cgroup/control_file.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "lib/testing/status_matchers.h"

namespace gantry::cgroup {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class CgroupRootTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    auto layout = Layout::Detect();
    if (!layout.ok()) GTEST_SKIP() << "needs cgroups: " << layout.status();
    auto plan = Cgroup::Plan(*layout, absl::StrCat("/gantry-test-", RandomHex(6), "/leaf"));
    ASSERT_OK(plan);
    cgroup_ = *plan;
    ASSERT_OK(cgroup_.Create());
  }
  void TearDown() override {
    if (cgroup_.empty()) return;
    EXPECT_OK(cgroup_.KillAll());
    EXPECT_OK(cgroup_.Remove());
    EXPECT_FALSE(cgroup_.Exists());
    for (const Directory& directory : cgroup_.directories()) {
      ::rmdir(directory.path.substr(0, directory.path.rfind('/')).c_str());
    }
  }

  // A child that joins as init does, then runs `argv`.
  sys::Child Run(std::vector<std::string> argv) {
    auto join = cgroup_.OpenForJoining();
    EXPECT_OK(join);
    std::string script;
    for (const Directory& directory : cgroup_.directories()) {
      absl::StrAppend(&script, "echo 0 > ", directory.path,
                      directory.unified() ? "/cgroup.procs; " : "/tasks; ");
    }
    absl::StrAppend(&script, "echo joined; exec ", argv[0]);
    for (size_t i = 1; i < argv.size(); ++i) absl::StrAppend(&script, " ", argv[i]);
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    sys::UniqueFd reader(ends[0]), writer(ends[1]);
    auto child = sys::Spawn({.argv = {"/bin/sh", "-c", script},
                             .environment = {"PATH=/usr/bin:/bin"},
                             .descriptors = {{writer.get(), 1}}});
    EXPECT_OK(child);
    writer.Reset();
    char word[8];
    EXPECT_GT(::read(reader.get(), word, sizeof word), 0) << "the child did not join";
    return std::move(*child);
  }

  Cgroup cgroup_;
};

TEST_F(CgroupRootTest, ListsFreezesAndKillsItsProcesses) {
  sys::Child child = Run({"/bin/sleep", "1000"});

  EXPECT_THAT(*cgroup_.Pids(), ElementsAre(child.pid()));
  ASSERT_OK(cgroup_.Freeze());
  EXPECT_TRUE(*cgroup_.IsFrozen());
  ASSERT_OK(cgroup_.Thaw());
  EXPECT_FALSE(*cgroup_.IsFrozen());
  ASSERT_OK(cgroup_.KillAll());
  auto status = child.Wait(absl::Seconds(10));

  ASSERT_OK(status);
  EXPECT_EQ(status->signal, SIGKILL);
}

TEST_F(CgroupRootTest, KillsFrozenProcesses) {
  sys::Child child = Run({"/bin/sleep", "1000"});
  ASSERT_OK(cgroup_.Freeze());

  ASSERT_OK(cgroup_.KillAll());

  ASSERT_OK(child.Wait(absl::Seconds(10)));
  EXPECT_THAT(*cgroup_.Pids(), IsEmpty());
}

TEST_F(CgroupRootTest, AppliesAndUpdatesLimits) {
  if (cgroup_.DirectoryOf("memory").empty()) GTEST_SKIP() << "needs the memory controller";
  const bool v2 = cgroup_.mode() == Mode::kV2;
  const char* file = v2 ? "memory.max" : "memory.limit_in_bytes";
  oci::Resources resources;
  resources.memory = oci::MemoryResources{.limit = 64 << 20};
  resources.pids_limit = 20;
  resources.cpu = oci::CpuResources{.shares = 512, .quota = 50000, .period = 100000};
  resources.devices = {{.allow = false, .access = "rwm"}};

  ASSERT_OK(cgroup_.Apply(resources));
  EXPECT_EQ(ReadNumber(cgroup_.DirectoryOf("memory"), file), 64u << 20);
  EXPECT_EQ(ReadNumber(cgroup_.DirectoryOf("pids"), "pids.max"), 20u);
  resources.memory->limit = 128 << 20;
  ASSERT_OK(cgroup_.Update(resources));

  EXPECT_EQ(ReadNumber(cgroup_.DirectoryOf("memory"), file), 128u << 20);
}

TEST_F(CgroupRootTest, DeniedDevicesCannotBeOpened) {
  oci::Resources resources;
  resources.devices = {{.allow = false, .access = "rwm"}};
  ASSERT_OK(cgroup_.Apply(resources));

  sys::Child allowed = Run({"/bin/sh", "-c", "': </dev/null'"});
  EXPECT_EQ(allowed.Wait(absl::Seconds(10))->code, 0);
  sys::Child denied = Run({"/bin/sh", "-c", "': </dev/kmsg'"});
  EXPECT_NE(denied.Wait(absl::Seconds(10))->code, 0);
}

TEST_F(CgroupRootTest, RefusedValuesNameTheFile) {
  oci::Resources resources;
  resources.cpu = oci::CpuResources{.cpus = "4000"};
  EXPECT_THAT(cgroup_.Apply(resources),
              ::gantry::testing::Fails(absl::StatusCode::kInvalidArgument, "cpuset.cpus"));
}

TEST_F(CgroupRootTest, TellsWhenTheKernelKillsForMemory) {
  if (cgroup_.DirectoryOf("memory").empty()) GTEST_SKIP() << "needs the memory controller";
  oci::Resources resources;
  resources.memory = oci::MemoryResources{.limit = 16 << 20, .swap = 16 << 20};
  if (!cgroup_.Apply(resources).ok()) {
    resources.memory->swap.reset();
    ASSERT_OK(cgroup_.Apply(resources));
  }
  auto watch = OomWatch::Open(cgroup_);
  ASSERT_OK(watch);

  sys::Child child = Run({"/bin/sh", "-c", "'x=$(head -c 200000000 /dev/zero | tr \"\\0\" a)'"});
  // v2's file changes with every attempt to reclaim, too: some news are none.
  uint64_t killed = 0;
  while (killed == 0) {
    pollfd poll_fd = {watch->fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&poll_fd, 1, 20000), 1);
    killed = watch->Drain();
  }

  EXPECT_GE(killed, 1u);
  EXPECT_FALSE(watch->gone());
  ASSERT_OK(child.Wait(absl::Seconds(20)));
}

TEST_F(CgroupRootTest, ReadsStatistics) {
  sys::Child child = Run({"/bin/sleep", "1000"});
  if (cgroup_.mode() == Mode::kV2) {
    auto stats = ReadStatsV2(cgroup_);
    ASSERT_OK(stats);
    EXPECT_EQ(stats->pids_current, 1u);
  } else {
    auto stats = ReadStatsV1(cgroup_);
    ASSERT_OK(stats);
    EXPECT_EQ(stats->pids_current, 1u);
    EXPECT_GT(stats->memory.usage, 0u);
    EXPECT_GT(stats->cpu_usage_total, 0u);
  }
}

TEST_F(CgroupRootTest, RemoveTakesCgroupsThatTheContainerMade) {
  for (const Directory& directory : cgroup_.directories()) {
    ASSERT_EQ(::mkdir((directory.path + "/inner").c_str(), 0755), 0);
  }
  EXPECT_OK(cgroup_.Remove());
  EXPECT_FALSE(cgroup_.Exists());
  EXPECT_OK(cgroup_.Remove()) << "fine when it is gone";
}

}  // namespace
}  // namespace gantry::cgroup
