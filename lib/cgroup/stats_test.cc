#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/cgroup/cgroup.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::cgroup {
namespace {

// A directory with the files of a cgroup, as the kernel writes them.
class StatsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = sys::TempDir::Create();
    ASSERT_OK(made);
    directory_ = std::make_unique<sys::TempDir>(std::move(*made));
  }
  void Put(const std::string& file, const std::string& text) {
    ASSERT_OK(sys::WriteFileAtomically(directory_->path() + "/" + file, text));
  }
  std::unique_ptr<sys::TempDir> directory_;
};

TEST_F(StatsTest, ReadsV1) {
  Put("pids.current", "3\n");
  Put("pids.max", "max\n");
  Put("cpuacct.usage", "1000\n");
  Put("cpuacct.usage_percpu", "600 400 \n");
  Put("cpuacct.stat", "user 2\nsystem 1\n");
  Put("cpu.stat", "nr_periods 5\nnr_throttled 4\nthrottled_time 30\n");
  Put("memory.stat", "cache 10\nrss 20\n");
  Put("memory.usage_in_bytes", "30\n");
  Put("memory.limit_in_bytes", "9223372036854771712\n");
  Put("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
  Put("blkio.throttle.io_service_bytes_recursive", "8:0 Read 4096\n8:0 Write 1\nTotal 4097\n");
  const Cgroup cgroup(Mode::kV1, {{directory_->path(), "cpu,cpuacct,memory,pids,blkio"}});

  auto stats = ReadStatsV1(cgroup);

  ASSERT_OK(stats);
  EXPECT_EQ(stats->pids_current, 3u);
  EXPECT_EQ(stats->pids_limit, 0u);
  EXPECT_EQ(stats->cpu_usage_total, 1000u);
  EXPECT_THAT(stats->cpu_usage_percpu, ::testing::ElementsAre(600, 400));
  EXPECT_EQ(stats->cpu_usage_user, 20000000u);
  EXPECT_EQ(stats->throttled_periods, 4u);
  EXPECT_EQ(ValueOf(stats->memory_stat, "rss"), 20u);
  EXPECT_EQ(stats->memory.usage, 30u);
  EXPECT_EQ(stats->oom_kill, 2u);
  ASSERT_EQ(stats->io_service_bytes_recursive.size(), 2u);
  EXPECT_EQ(stats->io_service_bytes_recursive[0].operation, "Read");
}

TEST_F(StatsTest, ReadsV2) {
  Put("pids.current", "3\n");
  Put("pids.max", "100\n");
  Put("cpu.stat", "usage_usec 7\nuser_usec 5\nsystem_usec 2\n");
  Put("memory.current", "30\n");
  Put("memory.max", "max\n");
  Put("memory.events", "low 0\noom_kill 1\n");
  Put("io.stat", "8:0 rbytes=4096 wbytes=1 rios=2 wios=3 dbytes=0 dios=0\n");
  Put("hugetlb.2MB.current", "0\n");
  Put("hugetlb.2MB.max", "max\n");
  const Cgroup cgroup(Mode::kV2, {{directory_->path(), ""}});

  auto stats = ReadStatsV2(cgroup);

  ASSERT_OK(stats);
  EXPECT_EQ(stats->pids_limit, 100u);
  EXPECT_EQ(ValueOf(stats->cpu_stat, "usage_usec"), 7u);
  EXPECT_EQ(stats->memory_limit, kNoLimit);
  EXPECT_EQ(ValueOf(stats->memory_events, "oom_kill"), 1u);
  ASSERT_EQ(stats->io.size(), 1u);
  EXPECT_EQ(stats->io[0].rbytes, 4096u);
  ASSERT_EQ(stats->hugetlb.size(), 1u);
  EXPECT_EQ(stats->hugetlb[0].page_size, "2MB");
}

TEST_F(StatsTest, AMissingCgroupIsNotFound) {
  EXPECT_FALSE(ReadStatsV1(Cgroup(Mode::kV1, {{"/no/such/cgroup", "memory"}})).ok());
  EXPECT_FALSE(ReadStatsV2(Cgroup(Mode::kV2, {{"/no/such/cgroup", ""}})).ok());
}

}  // namespace
}  // namespace gantry::cgroup
