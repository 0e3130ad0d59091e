#include "runtime/init/mount_plan.h"

#include <linux/mount.h>
#include <sys/mount.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::runtime {
namespace {

using ::gantry::testing::Fails;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Pair;

oci::Mount Bind(std::vector<std::string> options) {
  return {.destination = "/data", .type = "bind", .source = "/src", .options = std::move(options)};
}

TEST(MountPlanTest, OptionsBecomeAttributes) {
  auto plan = PlanMount(Bind({"rbind", "ro", "nosuid", "rslave"}), 0);
  ASSERT_OK(plan);
  EXPECT_TRUE(plan->bind);
  EXPECT_TRUE(plan->recursive);
  EXPECT_EQ(plan->set, uint64_t{MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID});
  EXPECT_THAT(plan->propagation, ElementsAre(Pair(MS_SLAVE, true)));
}

TEST(MountPlanTest, TheLaterOptionWins) {
  auto plan = PlanMount(Bind({"bind", "ro", "rw"}), 0);
  ASSERT_OK(plan);
  EXPECT_EQ(plan->set & MOUNT_ATTR_RDONLY, 0u);
  EXPECT_EQ(plan->clear & MOUNT_ATTR_RDONLY, uint64_t{MOUNT_ATTR_RDONLY});
}

TEST(MountPlanTest, RecursiveFormsAreApart) {
  auto plan = PlanMount(Bind({"rbind", "rro", "rnosuid", "rexec"}), 0);
  ASSERT_OK(plan);
  EXPECT_EQ(plan->set, 0u);
  EXPECT_EQ(plan->recursive_set, uint64_t{MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID});
  EXPECT_EQ(plan->recursive_clear, uint64_t{MOUNT_ATTR_NOEXEC});
}

TEST(MountPlanTest, RelatimeIsAnAttributeAndNoRecursiveElatime) {
  auto plan = PlanMount(Bind({"bind", "relatime", "rnoatime"}), 0);
  ASSERT_OK(plan);
  EXPECT_EQ(plan->clear, uint64_t{MOUNT_ATTR__ATIME});
  EXPECT_EQ(plan->recursive_set, uint64_t{MOUNT_ATTR_NOATIME});
}

TEST(MountPlanTest, TheRestIsForTheFileSystem) {
  auto plan = PlanMount({.destination = "/tmp",
                         .type = "tmpfs",
                         .source = "tmpfs",
                         .options = {"size=64m", "mode=1777", "nosuid", "sync", "noswap"}},
                        0);
  ASSERT_OK(plan);
  EXPECT_THAT(plan->data,
              ElementsAre(Pair("size", "64m"), Pair("mode", "1777"), Pair("noswap", "")));
  EXPECT_THAT(plan->flags, ElementsAre("sync"));
}

TEST(MountPlanTest, DataOnABindMountIsAMistake) {
  EXPECT_THAT(PlanMount(Bind({"bind", "size=1m"}), 3),
              Fails(absl::StatusCode::kInvalidArgument, "mounts[3].options: 'size'"));
  EXPECT_OK(PlanMount(Bind({"bind", "z"}), 0));
}

TEST(MountPlanTest, PlacesThatMayNotBeCovered) {
  const auto at = [](const char* destination) {
    return PlanMount({.destination = destination, .type = "tmpfs", .source = "tmpfs"}, 0);
  };
  EXPECT_FALSE(at("/").ok());
  EXPECT_FALSE(at("/a/..").ok());
  EXPECT_FALSE(at("/proc").ok());
  EXPECT_FALSE(at("proc/self").ok());
  EXPECT_FALSE(at("/x/../proc/sys").ok());
  EXPECT_OK(at("/procession"));
  EXPECT_OK(PlanMount({.destination = "/proc", .type = "proc", .source = "proc"}, 0));
  EXPECT_OK(PlanMount({.destination = "/proc/uptime", .type = "bind", .source = "/x"}, 0));
}

TEST(MountPlanTest, PathsAreCleanedLexically) {
  EXPECT_EQ(CleanPath("a//b/./c/../d/"), "/a/b/d");
  EXPECT_EQ(CleanPath("../../.."), "/");
  EXPECT_EQ(CleanPath(""), "/");
}

TEST(MountPlanTest, KnownOptionsIncludeTheRecursiveOnes) {
  EXPECT_THAT(KnownMountOptions(), Contains("rro"));
  EXPECT_THAT(KnownMountOptions(), Contains("rnosymfollow"));
  EXPECT_THAT(KnownMountOptions(), Contains("rslave"));
}

}  // namespace
}  // namespace gantry::runtime
