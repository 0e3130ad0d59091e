#include "lib/base/digest.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace gantry {
namespace {

TEST(DigestTest, ParsesAndSplits) {
  const std::string hex(64, 'a');

  absl::StatusOr<Digest> digest = Digest::Parse(absl::StrCat("sha256:", hex));

  ASSERT_TRUE(digest.ok());
  EXPECT_EQ(digest->hex(), hex);
}

TEST(DigestTest, RefusesEverythingElse) {
  const std::string hex(64, 'a');
  for (const std::string& bad :
       {std::string(), hex, absl::StrCat("sha512:", hex), absl::StrCat("sha256:", hex, "a"),
        absl::StrCat("sha256:", std::string(64, 'A')),
        absl::StrCat("sha256:", std::string(63, 'a')),
        std::string("sha256:../../../../../../../../../../../../../../../../../../../../etc/x")}) {
    EXPECT_EQ(Digest::Parse(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace gantry
