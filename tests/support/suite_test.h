// The fixture most integration tests stand on: one suite and one registry for the program, the
// busybox image pulled, and after every test no container and no leak.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"
#include "tests/support/command.h"
#include "tests/support/image_registry.h"
#include "tests/support/suite.h"

namespace gantry::testing {

class SuiteTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!IsRoot()) return;
    absl::StatusOr<std::unique_ptr<ImageRegistry>> registry = ImageRegistry::Start();
    ASSERT_OK(registry);
    registry_ = *std::move(registry);
    absl::StatusOr<std::unique_ptr<Suite>> suite = Suite::Start();
    ASSERT_OK(suite);
    suite_ = *std::move(suite);
    CommandResult pull = Ctl({"pull", "-q", registry_->busybox()});
    ASSERT_EQ(pull.code, 0) << pull;
  }

  static void TearDownTestSuite() {
    suite_.reset();
    registry_.reset();
  }

  void SetUp() override {
    REQUIRE_ROOT();
    ASSERT_NE(suite_, nullptr) << "the suite did not start";
  }

  void TearDown() override {
    if (suite_ == nullptr) return;
    const std::vector<std::string> left = Lines(Ctl({"ps", "-aq"}).out);
    if (!left.empty()) {
      std::vector<std::string> remove = {"rm", "-f", "-v"};
      remove.insert(remove.end(), left.begin(), left.end());
      const CommandResult removed = Ctl(remove);
      EXPECT_EQ(removed.code, 0) << removed;
    }
    EXPECT_TRUE(BecomesClean(*suite_));
    if (HasFailure()) {
      for (const std::string& process : Suite::Processes()) {
        GTEST_LOG_(INFO) << "log of " << process << ":\n" << suite_->Log(process);
      }
    }
  }

  static CommandResult Ctl(std::vector<std::string> arguments, CommandOptions options = {}) {
    return suite_->Ctl(std::move(arguments), std::move(options));
  }

  // `gantryctl run --rm OPTIONS IMAGE COMMAND`.
  static CommandResult Run(std::vector<std::string> options, std::vector<std::string> command,
                           CommandOptions how = {}) {
    std::vector<std::string> words = {"run", "--rm"};
    words.insert(words.end(), options.begin(), options.end());
    words.push_back(Image());
    words.insert(words.end(), command.begin(), command.end());
    return Ctl(std::move(words), std::move(how));
  }

  // `gantryctl run -d OPTIONS IMAGE COMMAND`; the id it printed.
  static std::string RunDetached(std::vector<std::string> options,
                                 std::vector<std::string> command) {
    std::vector<std::string> words = {"run", "-d"};
    words.insert(words.end(), options.begin(), options.end());
    words.push_back(Image());
    words.insert(words.end(), command.begin(), command.end());
    const CommandResult result = Ctl(std::move(words));
    EXPECT_EQ(result.code, 0) << result;
    return std::string(absl::StripAsciiWhitespace(result.out));
  }

  // One value of `inspect`.
  static std::string Inspect(const std::string& container, const std::string& format) {
    const CommandResult result = Ctl({"inspect", "-f", format, container});
    EXPECT_EQ(result.code, 0) << result;
    return std::string(absl::StripAsciiWhitespace(result.out));
  }

  // Runs a shell condition until it holds. False: it did not within the timeout.
  static bool Eventually(const std::string& condition, absl::Duration timeout = absl::Seconds(20)) {
    return Eventually(*suite_, condition, timeout);
  }
  static bool Eventually(const Suite& suite, const std::string& condition,
                         absl::Duration timeout = absl::Seconds(20)) {
    CommandOptions options;
    options.timeout = timeout + absl::Seconds(1);
    options.environment = {"GANTRY_HOST=" + suite.host(), "CTL=" + BinDirectory() + "/gantryctl"};
    const std::string script =
        "end=$(( $(date +%s) + " + std::to_string(absl::ToInt64Seconds(timeout)) + " )); until " +
        condition + "; do [ $(date +%s) -lt $end ] || exit 1; sleep 0.05; done";
    return RunShell(script, options).code == 0;
  }

  // Whether the audit finds nothing within some seconds: garbage is collected beside other work.
  static ::testing::AssertionResult BecomesClean(const Suite& suite) {
    if (Eventually(suite, "$CTL system audit > /dev/null")) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << suite.Ctl({"system", "audit"});
  }

  static std::vector<std::string> Lines(const std::string& text) {
    return absl::StrSplit(text, '\n', absl::SkipWhitespace());
  }

  static std::string Image() { return registry_->busybox(); }

  static inline std::unique_ptr<ImageRegistry> registry_;
  static inline std::unique_ptr<Suite> suite_;
};

}  // namespace gantry::testing
