#include "lib/sys/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/temp_dir.h"

namespace gantry::sys {
namespace {

using ::testing::ElementsAre;

class FileTest : public ::testing::Test {
 protected:
  std::string At(absl::string_view name) { return absl::StrCat(dir_.path(), "/", name); }
  TempDir dir_ = *TempDir::Create();
};

TEST_F(FileTest, DurableWriteReplacesAndLeavesNoTemporary) {
  ASSERT_TRUE(WriteFileDurably(At("a"), "one").ok());
  ASSERT_TRUE(WriteFileDurably(At("a"), "two").ok());

  EXPECT_EQ(*ReadFile(At("a")), "two");
  EXPECT_THAT(*ListDirectory(dir_.path()), ElementsAre("a"));
}

TEST_F(FileTest, FailedWriteLeavesTheOldContent) {
  ASSERT_TRUE(MakeDirectories(At("d")).ok());
  EXPECT_FALSE(WriteFileDurably(At("d"), "x").ok());  // A directory cannot be replaced by a file.
  EXPECT_THAT(*ListDirectory(dir_.path()), ElementsAre("d"));
}

TEST_F(FileTest, ReadStopsAtTheLimit) {
  ASSERT_TRUE(WriteFileAtomically(At("a"), std::string(100, 'x')).ok());
  EXPECT_EQ(ReadFile(At("a"), 99).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReadFile(At("a"), 100)->size(), 100u);
}

TEST_F(FileTest, BeneathRefusesEscapes) {
  ASSERT_TRUE(MakeDirectories(At("root")).ok());
  ASSERT_TRUE(WriteFileAtomically(At("secret"), "s").ok());
  ASSERT_EQ(::symlink("../secret", At("root/link").c_str()), 0);
  absl::StatusOr<UniqueFd> root = OpenPath(At("root"));

  EXPECT_EQ(OpenBeneath(*root, "link", O_RDONLY).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(OpenBeneath(*root, "../secret", O_RDONLY).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(OpenInRoot(*root, "link", O_RDONLY).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(FileTest, RemoveTreeDoesNotFollowLinks) {
  ASSERT_TRUE(MakeDirectories(At("tree/a/b")).ok());
  ASSERT_TRUE(MakeDirectories(At("kept")).ok());
  ASSERT_TRUE(WriteFileAtomically(At("kept/file"), "x").ok());
  ASSERT_EQ(::symlink(At("kept").c_str(), At("tree/a/link").c_str()), 0);

  ASSERT_TRUE(RemoveTree(At("tree")).ok());

  EXPECT_FALSE(Exists(At("tree")));
  EXPECT_TRUE(Exists(At("kept/file")));
  EXPECT_TRUE(RemoveTree(At("tree")).ok());  // Gone already.
}

TEST_F(FileTest, MakeDirectoriesGivesTheModeInSpiteOfUmask) {
  const mode_t saved = ::umask(077);
  EXPECT_TRUE(MakeDirectories(At("x/y"), 0755).ok());
  ::umask(saved);
  struct stat info = {};
  ASSERT_EQ(::stat(At("x/y").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0755u);
}

TEST_F(FileTest, FifoSymlinkAndEmptyDirectoryComeAndGo) {
  ASSERT_TRUE(MakeFifo(At("log"), 0700).ok());
  EXPECT_EQ(MakeFifo(At("log"), 0700).code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(MakeSymlink("log", At("link")).ok());
  EXPECT_EQ(*ReadSymlink(At("link")), "log");
  EXPECT_FALSE(ReadSymlink(At("log")).ok());
  ASSERT_TRUE(MakeDirectories(At("d/e")).ok());
  EXPECT_EQ(RemoveEmptyDirectory(At("d")).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(RemoveEmptyDirectory(At("d/e")).ok());
  EXPECT_EQ(RemoveEmptyDirectory(At("d/e")).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace gantry::sys
