#include "ctl/run_clock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace gantry::ctl {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

void Add(StepTimings& timings, const std::string& step, uint64_t microseconds, uint32_t depth) {
  engine::v1::StepTiming* timing = timings.Add();
  timing->set_step(step);
  timing->set_microseconds(microseconds);
  timing->set_depth(depth);
}

// "name/depth", in order.
std::vector<std::string> Names(const std::vector<engine::v1::StepTiming>& steps) {
  std::vector<std::string> names;
  for (const auto& step : steps) names.push_back(absl::StrCat(step.step(), "/", step.depth()));
  return names;
}

TEST(WholesFirstTest, PutsEveryWholeBeforeItsParts) {
  StepTimings timings;
  Add(timings, "create", 5, 0);
  Add(timings, "lookup", 1, 1);
  Add(timings, "mount", 2, 3);
  Add(timings, "clone", 3, 3);
  Add(timings, "shim.create", 6, 2);
  Add(timings, "task.create", 7, 1);
  Add(timings, "task_create", 9, 0);
  Add(timings, "task_start", 4, 0);

  EXPECT_THAT(Names(WholesFirst(timings, 1)),
              ElementsAre("create/1", "task_create/1", "lookup/2", "task.create/2", "shim.create/3",
                          "mount/4", "clone/4", "task_start/1"));
}

TEST(WholesFirstTest, APeerCannotIndentWithoutEnd) {
  StepTimings timings;
  Add(timings, "deep", 1, 4000000000u);

  EXPECT_LT(WholesFirst(timings, 0)[0].depth(), 20u);
}

TEST(RunClockTest, TheTotalCountsAPartOnlyOnce) {
  RunClock clock;
  StepTimings timings;
  // Far longer than this test takes: counted, it would show in the total.
  Add(timings, "shim.create", 900000000, 1);
  Add(timings, "task_create", 900000000, 0);

  clock.StartOfProcess("client");
  clock.Step("request", timings);

  const std::vector<std::string> lines = absl::StrSplit(clock.Table(), '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 6u) << clock.Table();
  EXPECT_THAT(lines[1], AllOf(HasSubstr("client"), Not(HasSubstr("  client"))));
  EXPECT_THAT(lines[2], HasSubstr("request"));
  EXPECT_THAT(lines[3], HasSubstr("  task_create"));
  EXPECT_THAT(lines[4], HasSubstr("    shim.create"));
  EXPECT_THAT(lines[5], AllOf(HasSubstr("total"), Not(HasSubstr("900000"))));
}

}  // namespace
}  // namespace gantry::ctl
