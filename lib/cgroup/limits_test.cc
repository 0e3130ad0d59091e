#include "lib/cgroup/limits.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/cgroup/cgroup.h"
#include "lib/testing/status_matchers.h"

namespace gantry::cgroup {
namespace {

using ::gantry::testing::Fails;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Lines(const absl::StatusOr<std::vector<Setting>>& settings) {
  std::vector<std::string> lines;
  if (!settings.ok()) return {settings.status().ToString()};
  for (const Setting& setting : *settings) {
    lines.push_back(absl::StrCat(setting.file, "=", setting.value));
  }
  return lines;
}

TEST(LimitsTest, V1WritesMemoryBeforeMemoryAndSwap) {
  oci::Resources resources;
  resources.memory = oci::MemoryResources{.limit = 100, .reservation = 50, .swap = 200};
  resources.pids_limit = 0;
  EXPECT_THAT(Lines(SettingsV1(resources)),
              ElementsAre("memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=200",
                          "memory.soft_limit_in_bytes=50", "pids.max=1"));
}

TEST(LimitsTest, V2CountsSwapAlone) {
  oci::Resources resources;
  resources.memory = oci::MemoryResources{.limit = 100, .swap = 250};
  resources.cpu = oci::CpuResources{.shares = 1024, .quota = 50000, .period = 100000};
  resources.pids_limit = -1;
  resources.unified = {{"memory.high", "90"}};
  EXPECT_THAT(Lines(SettingsV2(resources)),
              ElementsAre("memory.max=100", "memory.swap.max=150", "cpu.weight=100",
                          "cpu.max=50000 100000", "pids.max=max", "memory.high=90"));
}

TEST(LimitsTest, V2RefusesSwapBelowOrWithoutMemory) {
  oci::Resources resources;
  resources.memory = oci::MemoryResources{.limit = 100, .swap = 50};
  EXPECT_THAT(SettingsV2(resources), Fails(absl::StatusCode::kInvalidArgument, "memory.swap"));
  resources.memory = oci::MemoryResources{.swap = 50};
  EXPECT_THAT(SettingsV2(resources), Fails(absl::StatusCode::kInvalidArgument, "memory.swap"));
}

TEST(LimitsTest, V1RefusesUnified) {
  oci::Resources resources;
  resources.unified = {{"memory.high", "90"}};
  EXPECT_THAT(SettingsV1(resources), Fails(absl::StatusCode::kInvalidArgument, "needs cgroup v2"));
}

TEST(LimitsTest, WeightsFollowTheNewerCurve) {
  EXPECT_EQ(CpuWeight(0), 1u);
  EXPECT_EQ(CpuWeight(2), 1u);
  EXPECT_EQ(CpuWeight(1024), 100u);
  EXPECT_EQ(CpuWeight(262144), 10000u);
  EXPECT_EQ(IoWeight(10), 1u);
  EXPECT_EQ(IoWeight(1000), 10000u);
}

TEST(LimitsTest, DeviceRulesDenyFirstAndSkipRepeatedDefaults) {
  const std::vector<oci::DeviceRule> rules = {
      {.allow = false, .access = "rwm"},
      {.allow = true, .type = "c", .major = 1, .minor = 3, .access = "rwm"},
      {.allow = true, .type = "c", .major = 10, .minor = 229, .access = "rw"}};

  const std::vector<DeviceLine> lines = DeviceLinesV1(WithDefaultDevices(rules));

  ASSERT_EQ(lines.size(), 12u);
  EXPECT_FALSE(lines[0].allow);
  EXPECT_EQ(lines[0].text, "a");
  EXPECT_EQ(lines.back().text, "c 10:229 rw");
  EXPECT_THAT(WithDefaultDevices({}), IsEmpty());
}

TEST(LimitsTest, ARuleAfterADenyIsKeptThoughItRepeatsADefault) {
  const std::vector<oci::DeviceRule> rules = {
      {.allow = false, .access = "rwm"},
      {.allow = false, .type = "c", .major = 1, .minor = 3, .access = "rwm"},
      {.allow = true, .type = "c", .major = 1, .minor = 3, .access = "rwm"}};
  EXPECT_TRUE(DeviceLinesV1(WithDefaultDevices(rules)).back().allow);
}

TEST(PlanTest, RefusesPathsThatLeaveTheirPlace) {
  Layout layout{
      .mode = Mode::kV1,
      .hierarchies = {
          {.mount_point = "/sys/fs/cgroup/memory", .controllers = "memory", .own_path = "/"}}};
  EXPECT_FALSE(Cgroup::Plan(layout, "").ok());
  EXPECT_FALSE(Cgroup::Plan(layout, "/").ok());
  EXPECT_FALSE(Cgroup::Plan(layout, "/a/../b").ok());
  EXPECT_FALSE(Cgroup::Plan(layout, "/a\nb").ok());
  auto plan = Cgroup::Plan(layout, "//gantry//web");
  ASSERT_OK(plan);
  EXPECT_EQ(plan->DirectoryOf("memory"), "/sys/fs/cgroup/memory/gantry/web");
  EXPECT_EQ(plan->DirectoryOf("cpu"), "");
}

}  // namespace
}  // namespace gantry::cgroup
