#include "lib/base/failpoint.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gantry::failpoint {
namespace {

using ::testing::ElementsAre;

absl::Status StepOne() { return FAILPOINT("test.steps.one"); }
absl::Status StepTwo() { return FAILPOINT("test.steps.two"); }

class FailpointTest : public ::testing::Test {
 protected:
  void TearDown() override { DisarmAll(); }
};

TEST_F(FailpointTest, DisarmedDoesNothing) {
  EXPECT_TRUE(StepOne().ok());
  EXPECT_TRUE(StepTwo().ok());
}

TEST_F(FailpointTest, AllSitesAreListed) {
  EXPECT_THAT(List(), ElementsAre("test.steps.one", "test.steps.two"));
}

TEST_F(FailpointTest, ErrorActsOnTheNthHitOnly) {
  ASSERT_TRUE(Arm("test.steps.one=error(boom)@2").ok());

  EXPECT_TRUE(StepOne().ok());
  EXPECT_EQ(StepOne(), absl::UnavailableError("boom"));
  EXPECT_TRUE(StepOne().ok());
  EXPECT_TRUE(StepTwo().ok());
}

TEST_F(FailpointTest, OffDisarms) {
  ASSERT_TRUE(Arm("test.steps.one=error; test.steps.two=enospc").ok());
  ASSERT_TRUE(Arm("test.steps.one=off").ok());

  EXPECT_TRUE(StepOne().ok());
  EXPECT_EQ(StepTwo().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(FailpointTest, KillEndsTheProcess) {
  EXPECT_EXIT(
      {
        (void)Arm("test.steps.one=kill");
        (void)StepOne();
      },
      ::testing::KilledBySignal(SIGKILL), "");
}

TEST_F(FailpointTest, ABadSpecificationArmsNothing) {
  EXPECT_EQ(Arm("test.steps.one=error;test.steps.two=explode").code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Arm("test.steps.one=error;no.such=error").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Arm("test.steps.one=error@0").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(StepOne().ok());
}

}  // namespace
}  // namespace gantry::failpoint
