#include "services/engine/user_database.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::engine {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const UserDatabase& Files() {
  static const auto* const files = new UserDatabase{
      "root:x:0:0:root:/root:/bin/sh\nbroken line\nwww:x:33:34:www:/srv:/bin/sh\n"
      "bad:x:99999999999:1::/:/bin/sh\n",
      "root:x:0:\nwheel:x:10:root\nweb:x:34:\nlogs:x:40:www,other\n"};
  return *files;
}

TEST(ResolveUserTest, NamesNumbersAndGroups) {
  EXPECT_EQ(*ResolveUser("", {}, Files()), (ResolvedUser{0, 0, {10}, "/root"}));
  EXPECT_EQ(*ResolveUser("www", {}, Files()), (ResolvedUser{33, 34, {40}, "/srv"}));
  EXPECT_EQ(*ResolveUser("33", {}, Files()), (ResolvedUser{33, 34, {40}, "/srv"}));
  EXPECT_EQ(*ResolveUser("www:logs", {}, Files()), (ResolvedUser{33, 40, {}, "/srv"}));
  EXPECT_EQ(*ResolveUser("1000:2000", {}, Files()), (ResolvedUser{1000, 2000, {}, "/"}));
  EXPECT_EQ(*ResolveUser("1000", {"logs", "7"}, Files()), (ResolvedUser{1000, 0, {7, 40}, "/"}));
}

TEST(ResolveUserTest, RefusalsNameWhatIsMissing) {
  EXPECT_THAT(ResolveUser("ghost", {}, Files()),
              Fails(absl::StatusCode::kNotFound, "unable to find user ghost"));
  EXPECT_THAT(ResolveUser("www:ghosts", {}, Files()),
              Fails(absl::StatusCode::kNotFound, "unable to find group ghosts"));
  EXPECT_THAT(ResolveUser("4294967295", {}, Files()), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ResolveUser("bad", {}, Files()), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(ResolveUser("a b", {}, Files()), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ResolveUser("www:", {}, Files()), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ResolveUser("-x", {}, Files()), HasCode(absl::StatusCode::kInvalidArgument));
}

TEST(ResolveUserTest, WithoutFilesThereIsStillRoot) {
  EXPECT_EQ(ResolveUser("root", {}, UserDatabase())->uid, 0u);
  EXPECT_EQ(ResolveUser("", {}, UserDatabase())->uid, 0u);
}

class LayersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<sys::TempDir> folder = sys::TempDir::Create();
    ASSERT_OK(folder);
    folder_.emplace(*std::move(folder));
    for (const char* layer : {"upper", "lower"}) {
      ASSERT_OK(sys::MakeDirectories(Path(layer, "etc"), 0755));
    }
    Write("lower", "etc/passwd", "low:x:1:1::/:/bin/sh\n");
    Write("lower", "etc/group", "low:x:1:\n");
  }
  std::string Path(const std::string& layer, const std::string& name = "") const {
    return absl::StrCat(folder_->path(), "/", layer, name.empty() ? "" : "/", name);
  }
  void Write(const std::string& layer, const std::string& name, const std::string& text) {
    ASSERT_OK(sys::WriteFileAtomically(Path(layer, name), text, 0644));
  }
  absl::StatusOr<UserDatabase> Read() {
    return ReadUserDatabaseFromLayers({Path("upper"), Path("lower")});
  }
  std::optional<sys::TempDir> folder_;
};

TEST_F(LayersTest, TheUppermostFileCounts) {
  EXPECT_EQ(Read()->passwd, "low:x:1:1::/:/bin/sh\n");
  Write("upper", "etc/passwd", "up:x:2:2::/:/bin/sh\n");
  EXPECT_EQ(Read()->passwd, "up:x:2:2::/:/bin/sh\n");
  EXPECT_EQ(Read()->group, "low:x:1:\n");
}

TEST_F(LayersTest, AWhiteoutHidesTheFileBelow) {
  REQUIRE_ROOT();
  ASSERT_EQ(::mknod(Path("upper", "etc/passwd").c_str(), S_IFCHR, makedev(0, 0)), 0);
  EXPECT_EQ(Read()->passwd, "");
  EXPECT_EQ(Read()->group, "low:x:1:\n");
}

TEST_F(LayersTest, ALinkIsLeftToTheWholeView) {
  ASSERT_EQ(::symlink("/etc/elsewhere", Path("upper", "etc/passwd").c_str()), 0);
  EXPECT_THAT(Read(), HasCode(absl::StatusCode::kUnavailable));
}

TEST_F(LayersTest, AFifoInARootDoesNotHang) {
  ASSERT_EQ(::mkfifo(Path("upper", "etc/passwd").c_str(), 0644), 0);
  absl::StatusOr<sys::UniqueFd> root = sys::OpenPath(Path("upper"));
  ASSERT_OK(root);
  EXPECT_THAT(ReadUserDatabase(*root),
              Fails(absl::StatusCode::kFailedPrecondition, "not a regular file"));
}

TEST_F(LayersTest, AnEscapingLinkInARootStaysInside) {
  ASSERT_OK(sys::MakeDirectories(Path("upper", "inner"), 0755));
  ASSERT_EQ(::symlink("../../../../etc/passwd", Path("upper", "etc/passwd").c_str()), 0);
  absl::StatusOr<sys::UniqueFd> root = sys::OpenPath(Path("upper"));
  ASSERT_OK(root);
  // Leads to itself within the root: a loop, and never to the host's file.
  EXPECT_FALSE(ReadUserDatabase(*root).ok());
}

}  // namespace
}  // namespace gantry::engine
