#include "lib/sys/directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::sys {
namespace {

class DirectoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<TempDir> made = TempDir::Create();
    ASSERT_OK(made);
    temp_ = std::make_unique<TempDir>(std::move(*made));
  }
  std::string Path(const std::string& name) { return temp_->path() + "/" + name; }
  mode_t ModeOf(const std::string& path) {
    struct stat info = {};
    EXPECT_EQ(::lstat(path.c_str(), &info), 0);
    return info.st_mode & 07777;
  }

  std::unique_ptr<TempDir> temp_;
};

TEST_F(DirectoryTest, MakeDirectoryIgnoresTheUmask) {
  const mode_t before = ::umask(077);
  EXPECT_OK(MakeDirectory(Path("open"), 0755));
  ::umask(before);

  EXPECT_EQ(ModeOf(Path("open")), 0755u);
  EXPECT_THAT(MakeDirectory(Path("open"), 0755),
              testing::HasCode(absl::StatusCode::kAlreadyExists));
}

TEST_F(DirectoryTest, CopyOwnerAndModeKeepsTheStickyBit) {
  ASSERT_OK(MakeDirectory(Path("model"), 01777));
  ASSERT_OK(MakeDirectory(Path("copy"), 0700));

  EXPECT_OK(CopyOwnerAndMode(Path("model"), Path("copy")));

  EXPECT_EQ(ModeOf(Path("copy")), 01777u);
}

TEST_F(DirectoryTest, SpreadSubdirectoriesIsFineToRepeat) {
  absl::StatusOr<bool> first = SpreadSubdirectories(temp_->path());
  ASSERT_OK(first);

  absl::StatusOr<bool> second = SpreadSubdirectories(temp_->path());

  ASSERT_OK(second);
  EXPECT_EQ(*first, *second);
}

TEST_F(DirectoryTest, MeasureTreeCountsAHardLinkOnce) {
  ASSERT_OK(MakeDirectory(Path("tree"), 0755));
  ASSERT_OK(WriteFileAtomically(Path("tree/a"), std::string(100000, 'x')));
  ASSERT_EQ(::link(Path("tree/a").c_str(), Path("tree/b").c_str()), 0);
  ASSERT_EQ(::symlink("/etc", Path("tree/link").c_str()), 0);

  ASSERT_OK(SyncFileSystem(Path("tree")));
  absl::StatusOr<DiskUsage> usage = MeasureTree(Path("tree"));

  ASSERT_OK(usage);
  EXPECT_EQ(usage->inodes, 3u);  // tree, a, link
  EXPECT_GE(usage->bytes, 100000u);
  EXPECT_LT(usage->bytes, 200000u);
}

TEST_F(DirectoryTest, MeasureTreeNamesWhatIsMissing) {
  EXPECT_THAT(MeasureTree(Path("gone")), testing::Fails(absl::StatusCode::kNotFound, "gone"));
}

}  // namespace
}  // namespace gantry::sys
