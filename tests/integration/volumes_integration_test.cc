// Bind mounts, tmpfs and volumes.

#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "tests/support/suite_test.h"

namespace gantry {
namespace {

using ::gantry::testing::CommandResult;
using ::testing::HasSubstr;
using ::testing::Not;

class VolumesTest : public testing::SuiteTest {
 protected:
  std::string Folder(const std::string& name) {
    const std::string path = suite_->root() + "/" + name;
    EXPECT_OK(sys::MakeDirectories(path, 0755));
    return path;
  }
};

TEST_F(VolumesTest, BindMountsBothWays) {
  const std::string folder = Folder("bind");
  EXPECT_EQ(Run({"-v", folder + ":/data"}, {"sh", "-c", "echo in > /data/file"}).code, 0);
  EXPECT_EQ(*sys::ReadFile(folder + "/file"), "in\n");
  const CommandResult read_only = Run({"-v", folder + ":/data:ro"}, {"touch", "/data/x"});
  EXPECT_NE(read_only.code, 0);
  EXPECT_THAT(read_only.err, HasSubstr("Read-only"));
  EXPECT_EQ(Run({"--mount", "type=bind,src=" + folder + "/file,dst=/etc/one,readonly"},
                {"cat", "/etc/one"})
                .out,
            "in\n");
}

TEST_F(VolumesTest, MissingSourcesAreMadeByVAndRefusedByMount) {
  const std::string path = suite_->root() + "/made-by-v";
  EXPECT_EQ(Run({"-v", path + ":/data"}, {"true"}).code, 0);
  EXPECT_TRUE(sys::Exists(path));
  const CommandResult refused =
      Run({"--mount", "type=bind,src=" + path + "-not,dst=/data"}, {"true"});
  EXPECT_EQ(refused.code, 125) << refused;
  EXPECT_THAT(refused.err, HasSubstr("made-by-v-not"));
}

TEST_F(VolumesTest, NamedVolumesOutliveContainers) {
  EXPECT_EQ(Run({"-v", "keep:/data"}, {"sh", "-c", "echo kept > /data/f"}).code, 0);
  EXPECT_EQ(Run({"-v", "keep:/data"}, {"cat", "/data/f"}).out, "kept\n");
  EXPECT_THAT(Ctl({"volume", "ls"}).out, HasSubstr("keep"));
  const std::string id = RunDetached({"-v", "keep:/data"}, {"sleep", "600"});
  const CommandResult used = Ctl({"volume", "rm", "keep"});
  EXPECT_EQ(used.code, 1);
  EXPECT_THAT(used.err, HasSubstr("in use"));
  EXPECT_EQ(Ctl({"rm", "-f", id}).code, 0);
  EXPECT_EQ(Ctl({"volume", "rm", "keep"}).out, "keep\n");
}

TEST_F(VolumesTest, AFreshVolumeStartsWithTheImagesContent) {
  EXPECT_THAT(Run({"-v", "etc:/etc"}, {"cat", "/etc/passwd"}).out, HasSubstr("root:x:0:0"));
  EXPECT_EQ(Ctl({"volume", "rm", "etc"}).code, 0);
}

TEST_F(VolumesTest, AnonymousVolumesGoWithRm) {
  const std::string id = RunDetached({"--rm", "-v", "/scratch"}, {"sleep", "600"});
  EXPECT_EQ(Lines(Ctl({"volume", "ls", "-q"}).out).size(), 1u);
  EXPECT_EQ(Ctl({"rm", "-f", "-v", id}).code, 0);
  EXPECT_EQ(Ctl({"volume", "ls", "-q"}).out, "");
}

TEST_F(VolumesTest, ContainersDoNotSeeEachOthersFiles) {
  RunDetached({"--name", "one"}, {"sh", "-c", "echo 1 > /same; sleep 600"});
  RunDetached({"--name", "two"}, {"sh", "-c", "echo 2 > /same; sleep 600"});
  EXPECT_TRUE(Eventually("[ \"$($CTL exec one cat /same)\" = 1 ]"));
  EXPECT_TRUE(Eventually("[ \"$($CTL exec two cat /same)\" = 2 ]"));
}

TEST_F(VolumesTest, MountTargetsThatClimbAreRefused) {
  const CommandResult result = Run({"-v", Folder("landing") + ":/var/run/../../mnt/x"}, {"true"});
  EXPECT_EQ(result.code, 125) << result;
  EXPECT_THAT(result.err, HasSubstr("'..'"));
}

}  // namespace
}  // namespace gantry
