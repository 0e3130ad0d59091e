// Pulls over bad connections and onto full disks: an error that says what it is, or success, and in
// both cases nothing is left behind (the fixture audits after every test).

#include <string>

#include "absl/strings/str_cat.h"
#include "tests/fault/cutting_proxy.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandResult;
using ::gantry::testing::CuttingProxy;
using ::gantry::testing::Suite;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr uint16_t kProxyPort = 5001;
constexpr char kThroughProxy[] = "127.0.0.1:5001/large:latest";

class BadConnectionTest : public testing::SuiteTest,
                          public ::testing::WithParamInterface<CuttingProxy::Cut> {
 protected:
  void SetUp() override {
    testing::SuiteTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_OK(registry_->Push("large", 2, 4));
    absl::StatusOr<std::unique_ptr<CuttingProxy>> proxy = CuttingProxy::Start(kProxyPort, 5000);
    ASSERT_OK(proxy);
    proxy_ = *std::move(proxy);
  }
  void TearDown() override {
    (void)Ctl({"rmi", "-f", kThroughProxy});
    testing::SuiteTest::TearDown();
  }

  std::unique_ptr<CuttingProxy> proxy_;
};

TEST_P(BadConnectionTest, APullGoesOnWhereTheConnectionBroke) {
  proxy_->CutAfter(800'000, GetParam());

  const CommandResult pull = Ctl({"pull", "-q", kThroughProxy});

  EXPECT_EQ(pull.code, 0) << pull;
  EXPECT_GE(proxy_->cuts(), 3);
  EXPECT_EQ(Ctl({"run", "--rm", kThroughProxy, "echo", "whole"}).out, "whole\n");
}

TEST_P(BadConnectionTest, APullThatNeverGetsAnythingSaysSo) {
  proxy_->CutAfter(0, GetParam());

  const CommandResult pull = Ctl({"pull", "-q", kThroughProxy});

  EXPECT_NE(pull.code, 0);
  EXPECT_THAT(pull.err, HasSubstr("127.0.0.1:5001"));
  EXPECT_THAT(pull.err, HasSubstr("attempts"));
  EXPECT_THAT(Ctl({"images"}).out, ::testing::Not(HasSubstr("5001")));
}

INSTANTIATE_TEST_SUITE_P(Cuts, BadConnectionTest,
                         ::testing::Values(CuttingProxy::Cut::kReset, CuttingProxy::Cut::kTruncate),
                         [](const auto& parameter) {
                           return parameter.param == CuttingProxy::Cut::kReset ? "Reset"
                                                                               : "Truncated";
                         });

// The state directory of one process is a file system of its own, too small for the image.
class FullDiskTest : public testing::SuiteTest, public ::testing::WithParamInterface<std::string> {
 protected:
  static CommandResult Shell(const std::string& script) { return testing::RunShell(script); }
};

TEST_P(FullDiskTest, APullSaysThatTheDiskIsFullAndSucceedsWhenItIsNot) {
  const std::string& process = GetParam();
  ASSERT_OK(registry_->Push("large", 2, 4));
  absl::StatusOr<std::unique_ptr<Suite>> small = Suite::Start();
  ASSERT_OK(small);
  const std::string directory = absl::StrCat((*small)->state(), "/", process);
  ASSERT_OK((*small)->Stop(process));
  const CommandResult mounted = Shell("mount -t tmpfs -o size=3m,mode=0700 none " + directory);
  ASSERT_EQ(mounted.code, 0) << mounted;
  ASSERT_OK((*small)->Launch(process));
  const std::string image = absl::StrCat(registry_->address(), "/large:latest");

  const CommandResult full = (*small)->Ctl({"pull", "-q", image});
  EXPECT_NE(full.code, 0);
  EXPECT_THAT(full.err, AnyOf(HasSubstr("No space left"), HasSubstr("disk is full")));
  EXPECT_TRUE(BecomesClean(**small));

  ASSERT_EQ(Shell("mount -o remount,size=100m " + directory).code, 0);
  const CommandResult pull = (*small)->Ctl({"pull", "-q", image});
  EXPECT_EQ(pull.code, 0) << pull;
  EXPECT_EQ((*small)->Ctl({"run", "--rm", image, "echo", "whole"}).out, "whole\n");
  EXPECT_TRUE(BecomesClean(**small));
}

INSTANTIATE_TEST_SUITE_P(Processes, FullDiskTest, ::testing::Values("image", "snapshotter"),
                         [](const auto& parameter) { return parameter.param; });

}  // namespace
}  // namespace gantry
