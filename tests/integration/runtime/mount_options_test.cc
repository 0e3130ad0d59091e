// Every mount option of the specification, as the kernel shows it in the container's mountinfo.
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/sys/file.h"
#include "tests/integration/runtime/bundle.h"

namespace gantry::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

struct MountLine {
  std::vector<std::string> options;
  std::string propagation;  // "shared:5 master:3", "unbindable", ""
};

class RuntimeMountOptionsTest : public RuntimeTest {
 protected:
  void SetUp() override {
    RuntimeTest::SetUp();
    if (HasFatalFailure() || IsSkipped()) return;
    ASSERT_OK(sys::MakeDirectories(path("tree/below"), 0755));
    ASSERT_EQ(
        RunShell(absl::StrCat("mount -t tmpfs -o strictatime none ", path("tree/below"))).code, 0);
  }
  void TearDown() override {
    RunShell(absl::StrCat("umount ", path("tree/below")));
    RuntimeTest::TearDown();
  }

  // The mounts at /tree and below it when the tree is bound with these options.
  std::map<std::string, MountLine> Bind(std::vector<std::string> options) {
    options.insert(options.begin(), "rbind");
    spec_.mounts.push_back(
        {.destination = "/tree", .type = "bind", .source = path("tree"), .options = options});
    CommandResult result = RunScript("cat /proc/self/mountinfo");
    spec_.mounts.pop_back();
    EXPECT_EQ(result.code, 0) << result;
    return Parse(result.out);
  }

  std::map<std::string, MountLine> Parse(const std::string& text) {
    std::map<std::string, MountLine> lines;
    for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      const std::vector<std::string> halves = absl::StrSplit(line, absl::MaxSplits(" - ", 1));
      const std::vector<std::string> fields = absl::StrSplit(halves[0], ' ');
      MountLine& mount = lines[fields[4]];
      mount.options = absl::StrSplit(fields[5], ',');
      for (size_t i = 6; i < fields.size(); ++i)
        absl::StrAppend(&mount.propagation, fields[i], " ");
    }
    return lines;
  }
};

struct OptionCase {
  const char* option;
  const char* shown;  // In mountinfo, when it is set; "-x": x must not be there.
};

class RuntimeRecursiveOptionTest : public RuntimeMountOptionsTest,
                                   public ::testing::WithParamInterface<OptionCase> {};

void Expect(const MountLine& mount, const std::string& shown) {
  if (shown[0] == '-') {
    EXPECT_THAT(mount.options, Not(Contains(shown.substr(1))));
  } else {
    EXPECT_THAT(mount.options, Contains(shown));
  }
}

TEST_P(RuntimeRecursiveOptionTest, ReachesMountsBelow) {
  auto mounts = Bind({GetParam().option});
  Expect(mounts["/tree"], GetParam().shown);
  Expect(mounts["/tree/below"], GetParam().shown);
}

TEST_P(RuntimeRecursiveOptionTest, WithoutTheLetterStaysAtTheTop) {
  const std::string plain = GetParam().option + 1;
  auto mounts = Bind({plain});
  Expect(mounts["/tree"], GetParam().shown);
  if (std::string(GetParam().shown)[0] != '-') {
    EXPECT_THAT(mounts["/tree/below"].options, Not(Contains(GetParam().shown)));
  }
}

INSTANTIATE_TEST_SUITE_P(All, RuntimeRecursiveOptionTest,
                         ::testing::Values(OptionCase{"rro", "ro"}, OptionCase{"rnosuid", "nosuid"},
                                           OptionCase{"rnodev", "nodev"},
                                           OptionCase{"rnoexec", "noexec"},
                                           OptionCase{"rnoatime", "noatime"},
                                           OptionCase{"rrelatime", "relatime"},
                                           OptionCase{"rnodiratime", "nodiratime"},
                                           OptionCase{"rnosymfollow", "nosymfollow"}),
                         [](const auto& info) { return std::string(info.param.option); });

TEST_F(RuntimeMountOptionsTest, TheOppositeTakesAnOptionAway) {
  ASSERT_EQ(RunShell(absl::StrCat("mount -o remount,bind,nosuid,nodev,noexec,noatime,ro ",
                                  path("tree/below")))
                .code,
            0);
  for (const auto& [option, hidden] :
       std::map<std::string, std::string>{{"rrw", "ro"},
                                          {"rsuid", "nosuid"},
                                          {"rdev", "nodev"},
                                          {"rexec", "noexec"},
                                          {"ratime", "noatime"},
                                          {"rstrictatime", "noatime"},
                                          {"rsymfollow", "nosymfollow"},
                                          {"rdiratime", "nodiratime"}}) {
    EXPECT_THAT(Bind({option})["/tree/below"].options, Not(Contains(hidden))) << option;
  }
}

TEST_F(RuntimeMountOptionsTest, PropagationIsEachMountsOwn) {
  EXPECT_EQ(Bind({"rprivate"})["/tree"].propagation, "");
  EXPECT_THAT(Bind({"rshared"})["/tree/below"].propagation, HasSubstr("shared:"));
  EXPECT_THAT(Bind({"shared"})["/tree"].propagation, HasSubstr("shared:"));
  EXPECT_THAT(Bind({"runbindable"})["/tree/below"].propagation, HasSubstr("unbindable"));
  EXPECT_THAT(Bind({"unbindable"})["/tree"].propagation, HasSubstr("unbindable"));
}

TEST_F(RuntimeMountOptionsTest, ASlaveHearsFromTheHost) {
  const std::string top = path("tree/below");
  ASSERT_EQ(RunShell(absl::StrCat("mount --make-shared ", top, "; mkdir ", top, "/later")).code, 0);
  spec_.mounts.push_back(
      {.destination = "/heard", .type = "bind", .source = top, .options = {"rbind", "rslave"}});
  StartScript("c", "until test -e /heard/later/file; do sleep 0.02; done; echo seen");
  ASSERT_EQ(
      RunShell(absl::StrCat("mount -t tmpfs none ", top, "/later; touch ", top, "/later/file"))
          .code,
      0);
  EXPECT_TRUE(Eventually([&] { return Output().find("seen") != std::string::npos; })) << Output();
  RunShell(absl::StrCat("umount ", top, "/later"));
}

TEST_F(RuntimeMountOptionsTest, RecursiveIdMappingCoversMountsBelow) {
  spec_.mounts.push_back({.destination = "/mapped",
                          .type = "bind",
                          .source = path("tree"),
                          .options = {"rbind", "ridmap"},
                          .uid_mappings = {{.container_id = 0, .host_id = 7000, .size = 10}},
                          .gid_mappings = {{.container_id = 0, .host_id = 8000, .size = 10}}});
  CommandResult result = RunScript("stat -c %u:%g /mapped /mapped/below");
  if (result.err.find("does its file system support") != std::string::npos)
    GTEST_SKIP() << result.err;
  EXPECT_EQ(result.out, "7000:8000\n7000:8000\n") << result;
  spec_.mounts.back().options = {"rbind", "idmap"};
  EXPECT_EQ(RunScript("stat -c %u:%g /mapped /mapped/below").out, "7000:8000\n0:0\n");
}

TEST_F(RuntimeMountOptionsTest, FileSystemsGetTheirOwnOptions) {
  spec_.mounts.push_back({.destination = "/small",
                          .type = "tmpfs",
                          .source = "tmpfs",
                          .options = {"nosuid", "strictatime", "mode=0751", "size=64k", "uid=7"}});
  CommandResult result = RunScript(
      "stat -c %a:%u /small; grep ' /small ' /proc/self/mountinfo; head -c 100000 "
      "/dev/zero > /small/x 2>/dev/null; stat -c %s /small/x");
  EXPECT_THAT(result.out, HasSubstr("751:7\n")) << result;
  EXPECT_THAT(result.out, HasSubstr("size=64k"));
  EXPECT_THAT(result.out, HasSubstr("\n65536\n"));
  spec_.mounts.back().options = {"nonesuch=1"};
  result = RunScript("true");
  EXPECT_NE(result.code, 0);
  EXPECT_THAT(result.err, HasSubstr("nonesuch"));
}

}  // namespace
}  // namespace gantry::testing
