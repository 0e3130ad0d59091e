// The configuration file we ship: every key it shows is known, and the defaults it tells start the
// suite.

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/testing/status_matchers.h"
#include "tests/support/suite.h"

namespace gantry {
namespace {

// The shipped file with its keys in force, except those that name places of the machine.
std::string ShippedKeys() {
  absl::StatusOr<std::string> file =
      sys::ReadFile(testing::SourceDirectory() + "/deploy/config/gantry.toml");
  EXPECT_OK(file);
  std::string keys;
  for (absl::string_view line : absl::StrSplit(*file, '\n')) {
    if (absl::StartsWith(line, "[")) {
      absl::StrAppend(&keys, line, "\n");
      continue;
    }
    if (!absl::ConsumePrefix(&line, "#") || absl::StartsWith(line, " ")) continue;
    bool of_machine = false;
    for (const char* key : {"state_dir", "run_dir", "cgroup_parent", "network_bridge"}) {
      of_machine = of_machine || absl::StartsWith(line, key);
    }
    if (!of_machine) absl::StrAppend(&keys, line, "\n");
  }
  return keys;
}

TEST(ConfigTest, EveryShippedKeyIsKnown) {
  REQUIRE_ROOT();
  absl::StatusOr<std::unique_ptr<testing::Suite>> suite = testing::Suite::Start(ShippedKeys());
  ASSERT_OK(suite);
  EXPECT_EQ((*suite)->Ctl({"version"}).code, 0);
}

TEST(ConfigTest, AnUnknownKeyStopsItsProcessAndIsNamed) {
  REQUIRE_ROOT();
  absl::StatusOr<std::unique_ptr<testing::Suite>> suite =
      testing::Suite::Start("[engine]\nnetwork_brigde = \"x\"\n");
  EXPECT_THAT(suite, testing::Fails(absl::StatusCode::kUnavailable, "network_brigde"));
}

}  // namespace
}  // namespace gantry
