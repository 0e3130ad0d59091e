// On a tree that looks like resctrl: no machine of ours has the hardware. The kernel makes the
// files of a new group; here a test does, where one is needed.
#include "runtime/resctrl.h"

#include <sys/stat.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::runtime {
namespace {

using ::testing::HasSubstr;

class ResctrlTest : public ::testing::Test {
 protected:
  void MakeGroup(const std::string& name, const std::string& schemata) {
    ASSERT_OK(sys::MakeDirectories(path(name + "/mon_groups")));
    ASSERT_OK(sys::WriteFileAtomically(path(name + "/schemata"), schemata));
    ASSERT_OK(sys::WriteFileAtomically(path(name + "/tasks"), ""));
  }
  std::string path(const std::string& name) const { return absl::StrCat(tree_->path(), "/", name); }
  absl::StatusOr<ResctrlPlan> Plan() { return PlanResctrl(rdt_, "web", tree_->path()); }

  std::unique_ptr<sys::TempDir> tree_ = std::make_unique<sys::TempDir>(*sys::TempDir::Create());
  oci::IntelRdt rdt_;
};

TEST_F(ResctrlTest, AGroupWithoutAClosIdHasTheContainersName) {
  rdt_.l3_cache_schema = "L3:0=f";
  auto plan = Plan();
  ASSERT_OK(plan);
  EXPECT_EQ(plan->group, path("web"));
  EXPECT_TRUE(plan->owned);
  EXPECT_EQ(plan->monitor, "");
}

TEST_F(ResctrlTest, AnExistingGroupIsJoinedAndStays) {
  MakeGroup("gold", "    L3:0=00f;1=0ff\n    MB:0=100;1=50\n");
  rdt_.clos_id = "gold";
  rdt_.enable_monitoring = true;
  auto plan = Plan();
  ASSERT_OK(plan);
  EXPECT_FALSE(plan->owned);
  EXPECT_EQ(plan->monitor, path("gold/mon_groups/web"));
  ASSERT_OK(MakeResctrl(rdt_, *plan));
  ASSERT_OK(sys::WriteFileAtomically(plan->monitor + "/tasks", ""));
  ASSERT_OK(JoinResctrl(*plan, 4711));
  EXPECT_EQ(*sys::ReadFile(path("gold/tasks")), "4711");
  EXPECT_EQ(*sys::ReadFile(plan->monitor + "/tasks"), "4711");
  ASSERT_OK(sys::Unlink(plan->monitor + "/tasks"));
  ASSERT_OK(RemoveResctrl(*plan));
  EXPECT_FALSE(sys::Exists(plan->monitor));
  EXPECT_TRUE(sys::Exists(path("gold")));
}

TEST_F(ResctrlTest, TheRootGroupIsASlash) {
  MakeGroup(".", "L3:0=ff\n");
  rdt_.clos_id = "/";
  auto plan = Plan();
  ASSERT_OK(plan);
  EXPECT_EQ(plan->group, tree_->path());
  EXPECT_FALSE(plan->owned);
}

TEST_F(ResctrlTest, AnExistingGroupMustAgree) {
  MakeGroup("gold", "    L3:0=00f;1=0ff\n    MB:0=100;1=50\n");
  rdt_.clos_id = "gold";
  rdt_.l3_cache_schema = "L3:1=FF;0=f";
  rdt_.mem_bw_schema = "MB:0=100";
  EXPECT_OK(Plan()) << "the same in other words";
  rdt_.schemata = {"L2:0=3"};
  EXPECT_THAT(Plan().status().message(), HasSubstr("other schemata"));
  rdt_.schemata = {};
  rdt_.mem_bw_schema = "MB:0=90";
  EXPECT_EQ(Plan().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ResctrlTest, AClosIdAloneNeedsItsGroup) {
  rdt_.clos_id = "gold";
  absl::Status status = Plan().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("linux.intelRdt.closID"));
}

TEST_F(ResctrlTest, AFailedSchemaTakesTheGroupAway) {
  rdt_.l3_cache_schema = "L3:0=f";
  auto plan = Plan();
  ASSERT_OK(plan);
  // A plain directory gets no schemata file, so writing it fails as a bad schema would.
  absl::Status status = MakeResctrl(rdt_, *plan);
  EXPECT_THAT(status.message(), HasSubstr("L3:0=f"));
  EXPECT_FALSE(sys::Exists(path("web")));
}

TEST_F(ResctrlTest, UpdatesLines) {
  MakeGroup("web", "L3:0=f\n");
  ResctrlPlan plan = {path("web"), "", true};
  ASSERT_OK(UpdateResctrl(plan, "L3:0=3", ""));
  EXPECT_THAT(*sys::ReadFile(path("web/schemata")), HasSubstr("L3:0=3"));
  EXPECT_EQ(UpdateResctrl({}, "L3:0=3", "").code(), absl::StatusCode::kFailedPrecondition);
}

TEST(FindResctrlTest, SaysWhatIsMissing) {
  auto found = FindResctrl();
  if (found.ok()) GTEST_SKIP() << "this machine has resctrl at " << *found;
  EXPECT_THAT(found.status().message(), HasSubstr("linux.intelRdt"));
  EXPECT_THAT(found.status().message(), HasSubstr("mount -t resctrl"));
}

}  // namespace
}  // namespace gantry::runtime
