#include "lib/sys/mount.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::sys {
namespace {

using ::gantry::testing::Fails;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(ParseMountOptionsTest, TakesFlagsPropagationAndDataApart) {
  const MountOptions options = ParseMountOptions(
      {"ro", "nosuid", "rslave", "lowerdir=/a:/b", "index=off", "uidmap=0:1000:65536", "x-foo=1"});

  EXPECT_EQ(options.flags, MS_RDONLY | MS_NOSUID);
  EXPECT_EQ(options.propagation, MS_SLAVE | MS_REC);
  EXPECT_THAT(options.data, ElementsAre("lowerdir=/a:/b", "index=off"));
  EXPECT_EQ(options.uid_map, "0:1000:65536");
}

TEST(ParseMountOptionsTest, TheLaterWordWins) {
  EXPECT_EQ(ParseMountOptions({"ro", "rw"}).flags, 0u);
  EXPECT_EQ(ParseMountOptions({"rw", "ro"}).flags, static_cast<unsigned long>(MS_RDONLY));
}

TEST(UnescapeMountinfoTest, KnowsOctalAndKeepsTheRest) {
  EXPECT_EQ(UnescapeMountinfo("/a\\040b\\134c"), "/a b\\c");
  EXPECT_EQ(UnescapeMountinfo("/a\\04"), "/a\\04");
}

// Mounts in a namespace of its own, so that a failing test leaves nothing on the machine.
class MountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    directory_.emplace(TempDir::Create().value());
    // Overlay wants an upper directory that is not itself on overlay.
    ASSERT_EQ(::mount("tmpfs", directory_->path().c_str(), "tmpfs", 0, nullptr), 0);
  }
  void TearDown() override {
    failpoint::DisarmAll();
    if (directory_.has_value()) ::umount2(directory_->path().c_str(), MNT_DETACH);
  }
  std::string Make(const std::string& name) {
    const std::string path = absl::StrCat(directory_->path(), "/", name);
    EXPECT_OK(MakeDirectories(path, 0755));
    return path;
  }
  std::optional<TempDir> directory_;
};

TEST_F(MountTest, AReadOnlyBindIsReadOnly) {
  const std::string source = Make("source");
  const std::string target = Make("target");

  ASSERT_OK(MountAll({{"bind", source, "", {"rbind", "ro"}}}, target));

  struct statvfs info;
  ASSERT_EQ(::statvfs(target.c_str(), &info), 0);
  EXPECT_TRUE(info.f_flag & ST_RDONLY);
  EXPECT_OK(UnmountTree(target));
  EXPECT_THAT(MountPointsBelow(target).value(), IsEmpty());
}

TEST_F(MountTest, AnOverlayShowsItsLayers) {
  ASSERT_OK(WriteFileAtomically(absl::StrCat(Make("lower"), "/file"), "below"));
  const std::string target = Make("merged");

  ASSERT_OK(MountAll(
      {{"overlay",
        "overlay",
        "",
        {absl::StrCat("lowerdir=", Make("lower")), absl::StrCat("upperdir=", Make("upper")),
         absl::StrCat("workdir=", Make("work"))}}},
      target));

  EXPECT_EQ(ReadFile(absl::StrCat(target, "/file")).value(), "below");
}

TEST_F(MountTest, OptionsLongerThanAPageAreFine) {
  const std::string pad(60, 'x');
  std::vector<std::string> lower;
  for (int i = 0; i < 80; ++i) lower.push_back(Make(absl::StrCat("layers-", pad, "/", i, "/fs")));
  ASSERT_OK(WriteFileAtomically(absl::StrCat(lower.back(), "/bottom"), "seen"));
  const std::string data = absl::StrCat("lowerdir=", absl::StrJoin(lower, ":"));
  ASSERT_GT(data.size(), 4096u);
  const std::string target = Make("merged");

  ASSERT_OK(MountAll({{"overlay",
                       "overlay",
                       "",
                       {data, absl::StrCat("upperdir=", Make("upper")),
                        absl::StrCat("workdir=", Make("work")), "index=off"}}},
                     target));

  EXPECT_EQ(ReadFile(absl::StrCat(target, "/bottom")).value(), "seen");
}

TEST_F(MountTest, LayersTooLongForTheMountApiAreHandedOverRelatively) {
  // More than 255 bytes a path: fsconfig refuses it, whatever the kernel.
  const std::string pad(200, 'y');
  std::vector<std::string> lower;
  for (int i = 0; i < 20; ++i) lower.push_back(Make(absl::StrCat(pad, "/", pad, "/", i, "/fs")));
  ASSERT_OK(WriteFileAtomically(absl::StrCat(lower.back(), "/bottom"), "seen"));
  const std::string target = Make("merged");

  ASSERT_OK(MountAll(
      {{"overlay", "overlay", "", {"ro", absl::StrCat("lowerdir=", absl::StrJoin(lower, ":"))}}},
      target));

  EXPECT_EQ(ReadFile(absl::StrCat(target, "/bottom")).value(), "seen");
}

TEST_F(MountTest, IdMapsShiftTheLowerDirectories) {
  // ext4 and overlay-on-ext4 can be shifted; tmpfs since Linux 6.3.
  const std::string lower = Make("lower");
  ASSERT_OK(WriteFileAtomically(absl::StrCat(lower, "/file"), "x"));
  const std::string target = Make("merged");
  ASSERT_OK(
      MountAll({{"overlay",
                 "overlay",
                 "",
                 {absl::StrCat("lowerdir=", lower, ":", Make("lower2")),
                  absl::StrCat("upperdir=", Make("upper")), absl::StrCat("workdir=", Make("work")),
                  "uidmap=0:100000:65536", "gidmap=0:200000:65536"}}},
               target));
  struct stat info;
  ASSERT_EQ(::stat(absl::StrCat(target, "/file").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 100000u);
  EXPECT_EQ(info.st_gid, 200000u);
  EXPECT_OK(UnmountTree(target));
}

TEST_F(MountTest, IdMapsShiftABind) {
  const std::string source = Make("source");
  ASSERT_OK(WriteFileAtomically(absl::StrCat(source, "/file"), "x"));
  const std::string target = Make("target");
  ASSERT_OK(
      MountAll({{"bind", source, "", {"rbind", "ro", "uidmap=0:7:1", "gidmap=0:8:1"}}}, target));
  struct stat info;
  ASSERT_EQ(::stat(absl::StrCat(target, "/file").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 7u);
  struct statvfs fs;
  ASSERT_EQ(::statvfs(target.c_str(), &fs), 0);
  EXPECT_TRUE(fs.f_flag & ST_RDONLY);
  EXPECT_THAT(MountAll({{"bind", source, "", {"bind", "uidmap=x", "gidmap=0:8:1"}}}, target),
              Fails(absl::StatusCode::kInvalidArgument, "'x'"));
}

TEST_F(MountTest, AFailureUndoesTheMountsBeforeIt) {
  const std::string target = Make("target");

  const absl::Status status =
      MountAll({{"tmpfs", "tmpfs", "", {}}, {"bind", "/no/such/source", "", {"bind"}}}, target);

  EXPECT_THAT(status, Fails(absl::StatusCode::kNotFound, "/no/such/source"));
  EXPECT_THAT(MountPointsBelow(target).value(), IsEmpty());
}

TEST_F(MountTest, AFailpointAfterTheFirstMountLeavesNothing) {
  const std::string target = Make("target");
  ASSERT_OK(failpoint::Arm("sys.mount.before=error@2"));

  EXPECT_FALSE(MountAll({{"tmpfs", "t", "", {}}, {"tmpfs", "t", "", {}}}, target).ok());

  EXPECT_THAT(MountPointsBelow(target).value(), IsEmpty());
}

TEST_F(MountTest, ATargetMayNotLeaveTheDirectory) {
  EXPECT_THAT(MountAll({{"tmpfs", "t", "../x", {}}}, Make("target")),
              Fails(absl::StatusCode::kInvalidArgument, "../x"));
}

TEST_F(MountTest, UnmountTreeTakesSubmountsAndBusyOnes) {
  const std::string target = Make("with space");
  ASSERT_OK(MountAll({{"tmpfs", "t", "", {}}}, target));
  ASSERT_OK(MakeDirectories(absl::StrCat(target, "/sub"), 0755));
  ASSERT_OK(MountAll({{"tmpfs", "t", "sub", {}}}, target));
  const UniqueFd busy = Open(absl::StrCat(target, "/sub"), O_RDONLY | O_DIRECTORY).value();
  ASSERT_THAT(MountPointsBelow(target).value(), SizeIs(2));

  EXPECT_OK(UnmountTree(target));

  EXPECT_THAT(MountPointsBelow(target).value(), IsEmpty());
}

TEST_F(MountTest, UnmountTreeOfNothingIsFine) {
  EXPECT_OK(UnmountTree(Make("plain")));
  EXPECT_OK(UnmountTree(absl::StrCat(directory_->path(), "/missing")));
}

}  // namespace
}  // namespace gantry::sys
