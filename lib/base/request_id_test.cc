#include "lib/base/request_id.h"

#include <thread>

#include "gtest/gtest.h"

namespace gantry {
namespace {

TEST(RequestIdTest, BelongsToAThreadAndAScope) {
  EXPECT_EQ(CurrentRequestId(), "");
  {
    ScopedRequestId outer("outer");
    {
      ScopedRequestId inner("inner");
      EXPECT_EQ(CurrentRequestId(), "inner");
      std::thread([] { EXPECT_EQ(CurrentRequestId(), ""); }).join();
    }
    EXPECT_EQ(CurrentRequestId(), "outer");
  }
  EXPECT_EQ(CurrentRequestId(), "");
}

TEST(RequestIdTest, OnlyHarmlessTextIsAnId) {
  EXPECT_TRUE(IsRequestId(NewRequestId()));
  EXPECT_NE(NewRequestId(), NewRequestId());
  EXPECT_TRUE(IsRequestId("build-7.2_b"));
  EXPECT_FALSE(IsRequestId(""));
  EXPECT_FALSE(IsRequestId("a b"));
  EXPECT_FALSE(IsRequestId("a\nlevel=error"));
  EXPECT_FALSE(IsRequestId(std::string(65, 'a')));
}

}  // namespace
}  // namespace gantry
