#include "services/engine/volatile_root.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::engine {
namespace {

using ::testing::Contains;
using ::testing::Not;

containerd::types::Mount Mount(const std::string& type, const std::vector<std::string>& options) {
  containerd::types::Mount mount;
  mount.set_type(type);
  for (const std::string& option : options) mount.add_options(option);
  return mount;
}

TEST(VolatileRootTest, AnOverlayThatIsWrittenNeverSyncs) {
  absl::StatusOr<sys::TempDir> folder = sys::TempDir::Create();
  ASSERT_OK(folder);
  std::vector<containerd::types::Mount> rootfs = {
      Mount("overlay", {"lowerdir=/l", "upperdir=/u", "workdir=" + folder->path()})};

  ASSERT_OK(MakeVolatile(rootfs));

  EXPECT_THAT(rootfs[0].options(), Contains("volatile"));
}

TEST(VolatileRootTest, TheKernelsMarkOfARunBeforeIsRemoved) {
  absl::StatusOr<sys::TempDir> folder = sys::TempDir::Create();
  ASSERT_OK(folder);
  const std::string mark = absl::StrCat(folder->path(), "/work/incompat/volatile");
  ASSERT_OK(sys::MakeDirectories(mark, 0700));
  std::vector<containerd::types::Mount> rootfs = {
      Mount("overlay", {"lowerdir=/l", "upperdir=/u", "workdir=" + folder->path()})};

  ASSERT_OK(MakeVolatile(rootfs));

  EXPECT_FALSE(sys::Exists(absl::StrCat(folder->path(), "/work/incompat")));
  EXPECT_TRUE(sys::Exists(absl::StrCat(folder->path(), "/work")));
}

TEST(VolatileRootTest, WhatIsReadOnlyOrNoOverlayStaysAsItIs) {
  std::vector<containerd::types::Mount> rootfs = {Mount("bind", {"rbind", "rw"}),
                                                  Mount("overlay", {"lowerdir=/a:/b"})};

  ASSERT_OK(MakeVolatile(rootfs));

  EXPECT_THAT(rootfs[0].options(), Not(Contains("volatile")));
  EXPECT_THAT(rootfs[1].options(), Not(Contains("volatile")));
}

}  // namespace
}  // namespace gantry::engine
