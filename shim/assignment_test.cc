#include "shim/assignment.h"

#include <string>

#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::shim {
namespace {

TEST(AssignmentTest, NamesAreReadAndChecked) {
  const std::string good("default\0web\0/run/b/web\0", 23);
  absl::StatusOr<Assignment> assignment = ParseAssignment(good);
  ASSERT_OK(assignment);
  EXPECT_EQ(assignment->ns, "default");
  EXPECT_EQ(assignment->id, "web");
  EXPECT_EQ(assignment->bundle, "/run/b/web");

  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(ParseAssignment(good.substr(0, length)).ok()) << length;
  }
  EXPECT_FALSE(ParseAssignment(good + "x").ok());
  EXPECT_FALSE(ParseAssignment(std::string("default\0web\0run\0", 16)).ok());
  EXPECT_FALSE(ParseAssignment(std::string("default\0a/b\0/run\0", 17)).ok());
}

}  // namespace
}  // namespace gantry::shim
