// Matchers for statuses, and guards for tests that need something of the machine.
#pragma once

#include <ostream>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gantry::testing {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& value) {
  return value.status();
}

// EXPECT_THAT(call, IsOk());
MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

// EXPECT_THAT(call, HasCode(absl::StatusCode::kNotFound));
MATCHER_P(HasCode, code, "has code " + absl::StatusCodeToString(code)) {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).code() == code;
}

// EXPECT_THAT(call, Fails(absl::StatusCode::kNotFound, "no-such-layer"));
MATCHER_P2(Fails, code, part, "fails with " + absl::StatusCodeToString(code)) {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).code() == code &&
         StatusOf(arg).message().find(absl::string_view(part)) != absl::string_view::npos;
}

bool IsRoot();

}  // namespace gantry::testing

#define ASSERT_OK(expression) ASSERT_THAT(expression, ::gantry::testing::IsOk())
#define EXPECT_OK(expression) EXPECT_THAT(expression, ::gantry::testing::IsOk())

#define REQUIRE_ROOT()                                              \
  do {                                                              \
    if (!::gantry::testing::IsRoot()) GTEST_SKIP() << "needs root"; \
  } while (false)
