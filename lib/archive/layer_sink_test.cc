#include "lib/archive/layer_sink.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/testing/tar_builder.h"
#include "lib/archive/tree.h"
#include "lib/archive/unpack.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::archive {
namespace {

using ::testing::ElementsAre;
using testing::Fails;
using ::testing::IsEmpty;

ByteSource FromString(std::string bytes) {
  return [bytes = std::move(bytes), offset = size_t{0}](
             char* buffer, size_t size) mutable -> absl::StatusOr<size_t> {
    const size_t count = bytes.copy(buffer, size, offset);
    offset += count;
    return count;
  };
}

// A layer directory `root` beside a file `outside` that no layer may reach.
class LayerSinkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    absl::StatusOr<sys::TempDir> made = sys::TempDir::Create();
    ASSERT_OK(made);
    temp_.emplace(std::move(*made));
    ASSERT_OK(sys::MakeDirectories(Root()));
    ASSERT_OK(sys::WriteFileAtomically(temp_->path() + "/outside", "untouched"));
  }

  std::string Root() const { return temp_->path() + "/root"; }
  std::string Path(const std::string& name) const { return absl::StrCat(Root(), "/", name); }

  absl::StatusOr<UnpackResult> UnpackTar(const std::string& tar,
                                         Whiteouts whiteouts = Whiteouts::kOverlay,
                                         SinkLimits limits = {}) {
    UnpackOptions options;
    options.whiteouts = whiteouts;
    options.limits = limits;
    ASSIGN_OR_RETURN(sys::UniqueFd root, sys::Open(Root(), O_RDONLY | O_DIRECTORY));
    absl::StatusOr<UnpackResult> result = Unpack(FromString(tar), std::move(root), options);
    EXPECT_EQ(*sys::ReadFile(temp_->path() + "/outside"), "untouched");
    return result;
  }

  std::string Read(const std::string& name) {
    absl::StatusOr<std::string> text = sys::ReadFile(Path(name));
    return text.ok() ? *text : absl::StrCat("<", text.status().ToString(), ">");
  }

  struct stat Look(const std::string& name) {
    struct stat status = {};
    EXPECT_EQ(::lstat(Path(name).c_str(), &status), 0) << name;
    return status;
  }

  bool Exists(const std::string& name) {
    struct stat status = {};
    return ::lstat(Path(name).c_str(), &status) == 0;
  }

  std::optional<sys::TempDir> temp_;
};

TEST_F(LayerSinkTest, MakesEveryKindOfEntryWithItsAttributes) {
  TarEntry file = TarBuilder::Entry(EntryType::kRegular, "bin/tool", "", 04755);
  file.uid = 1000;
  file.gid = 50;
  file.modified = absl::FromUnixSeconds(1600000000) + absl::Nanoseconds(5);
  file.xattrs = {{"user.note", "kept"}, {"user.overlay.opaque", "y"}, {"trusted.x", "dropped"}};
  TarBuilder builder;
  builder.Directory("bin", 0711).File(file, "program");
  builder.Symlink("bin/alias", "tool").HardLink("bin/second", "bin/tool");
  builder.Add(EntryType::kFifo, "pipe", "", 0600);

  ASSERT_OK(UnpackTar(builder.Take()));

  EXPECT_EQ(Read("bin/tool"), "program");
  struct stat tool = Look("bin/tool");
  EXPECT_EQ(tool.st_mode & 07777, 04755u);
  EXPECT_EQ(tool.st_uid, 1000u);
  EXPECT_EQ(tool.st_gid, 50u);
  EXPECT_EQ(absl::TimeFromTimespec(tool.st_mtim), file.modified);
  EXPECT_EQ(tool.st_nlink, 2u);
  EXPECT_EQ(Look("bin/second").st_ino, tool.st_ino);
  EXPECT_TRUE(S_ISLNK(Look("bin/alias").st_mode));
  EXPECT_TRUE(S_ISFIFO(Look("pipe").st_mode));
  EXPECT_EQ(Look("bin").st_mode & 07777, 0711u);
  EXPECT_EQ(Look("bin").st_mtim.tv_sec, 1700000000);
  char value[16];
  EXPECT_EQ(::getxattr(Path("bin/tool").c_str(), "user.note", value, sizeof(value)), 4);
  EXPECT_LT(::getxattr(Path("bin/tool").c_str(), "user.overlay.opaque", value, sizeof(value)), 0);
  EXPECT_LT(::getxattr(Path("bin/tool").c_str(), "trusted.x", value, sizeof(value)), 0);
}

TEST_F(LayerSinkTest, ParentReferencesAreRefused) {
  for (const char* name : {"../outside", "a/../../outside", "/../outside", ".."}) {
    EXPECT_THAT(UnpackTar(TarBuilder().File(name, "evil").Take()),
                Fails(absl::StatusCode::kInvalidArgument, ".."))
        << name;
  }
}

TEST_F(LayerSinkTest, AbsoluteNamesLandInTheRoot) {
  ASSERT_OK(UnpackTar(TarBuilder().File("/etc//./passwd", "root").Take()));

  EXPECT_EQ(Read("etc/passwd"), "root");
}

TEST_F(LayerSinkTest, SymlinkedParentsStayInTheRoot) {
  TarBuilder builder;
  builder.Symlink("abs", temp_->path()).File("abs/outside", "evil");
  builder.Symlink("rel", "../../../../../..").File("rel/outside", "evil");

  ASSERT_OK(UnpackTar(builder.Take()));

  EXPECT_EQ(Read("outside"), "evil");
  EXPECT_EQ(Read(temp_->path().substr(1) + "/outside"), "evil");
}

TEST_F(LayerSinkTest, AFileDoesNotWriteThroughASymlinkOfItsName) {
  TarBuilder builder;
  builder.Symlink("victim", temp_->path() + "/outside").File("victim", "replaced");

  ASSERT_OK(UnpackTar(builder.Take()));

  EXPECT_TRUE(S_ISREG(Look("victim").st_mode));
  EXPECT_EQ(Read("victim"), "replaced");
}

TEST_F(LayerSinkTest, HardLinksDoNotReachOutside) {
  EXPECT_THAT(UnpackTar(TarBuilder().HardLink("x", "../outside").Take()),
              Fails(absl::StatusCode::kInvalidArgument, ".."));
  EXPECT_THAT(UnpackTar(TarBuilder().HardLink("x", temp_->path() + "/outside").Take()),
              Fails(absl::StatusCode::kInvalidArgument, "not there"));
  EXPECT_THAT(UnpackTar(TarBuilder().Directory("d").HardLink("x", "d").Take()),
              Fails(absl::StatusCode::kInvalidArgument, "not a file"));
}

TEST_F(LayerSinkTest, ALinkLoopEndsWithAnError) {
  TarBuilder builder;
  builder.Symlink("a", "b").Symlink("b", "a").File("a/x", "1");

  EXPECT_FALSE(UnpackTar(builder.Take()).ok());
}

TEST_F(LayerSinkTest, LaterEntriesReplaceEarlierOnes) {
  TarBuilder builder;
  builder.File("a", "file").Directory("a").File("a/b", "1");
  builder.Directory("c").File("c/d", "2").File("c", "now a file");
  builder.File("twice", "first, longer").File("twice", "second");

  ASSERT_OK(UnpackTar(builder.Take()));

  EXPECT_EQ(Read("a/b"), "1");
  EXPECT_EQ(Read("c"), "now a file");
  EXPECT_EQ(Read("twice"), "second");
}

TEST_F(LayerSinkTest, ParentsThatTheLayerDoesNotListAreReported) {
  TarBuilder builder;
  builder.File("usr/lib/x", "1").Directory("opt/a").Directory("opt");

  absl::StatusOr<UnpackResult> result = UnpackTar(builder.Take());

  ASSERT_OK(result);
  EXPECT_THAT(result->implicit_directories, ElementsAre("usr", "usr/lib"));
}

TEST_F(LayerSinkTest, WhiteoutsBecomeOverlayDevices) {
  TarBuilder builder;
  builder.File("etc/.wh.motd", "").File(".wh..wh.plnk", "");

  absl::StatusOr<UnpackResult> result = UnpackTar(builder.Take());

  ASSERT_OK(result);
  EXPECT_TRUE(IsWhiteoutDevice(Look("etc/motd")));
  EXPECT_FALSE(Exists("etc/.wh.motd"));
  EXPECT_FALSE(Exists(".wh..wh.plnk"));
}

TEST_F(LayerSinkTest, WhiteoutsHideLowerLayersOnly) {
  TarBuilder builder;
  builder.File("keep", "mine").File(".wh.keep", "");
  builder.File(".wh.later", "").File("later", "mine too");

  ASSERT_OK(UnpackTar(builder.Take()));

  EXPECT_EQ(Read("keep"), "mine");
  EXPECT_EQ(Read("later"), "mine too");
}

TEST_F(LayerSinkTest, AWhiteoutAndADirectoryOfTheSameNameMakeItOpaque) {
  TarBuilder builder;
  builder.File(".wh.before", "").Directory("before");
  builder.Directory("after").File(".wh.after", "");
  builder.File("marked/.wh..wh..opq", "");
  builder.File(".wh.implied", "").File("implied/x", "1");

  absl::StatusOr<UnpackResult> result = UnpackTar(builder.Take());

  ASSERT_OK(result);
  EXPECT_THAT(result->opaque_directories, ElementsAre("after", "before", "implied", "marked"));
}

TEST_F(LayerSinkTest, MalformedWhiteoutsAreRefused) {
  for (const char* name : {".wh.", ".wh..", "a/.wh..."}) {
    EXPECT_THAT(UnpackTar(TarBuilder().File(name, "").Take()),
                Fails(absl::StatusCode::kInvalidArgument, "whiteout"))
        << name;
  }
}

TEST_F(LayerSinkTest, OnAMountedViewWhiteoutsRemoveWhatWasThere) {
  ASSERT_OK(UnpackTar(TarBuilder()
                          .File("gone", "1")
                          .File("dir/gone", "2")
                          .File("opaque/old", "3")
                          .File("opaque/sub/old", "4")
                          .Take()));
  TarBuilder builder;
  builder.File(".wh.gone", "").File("dir/.wh.gone", "").File("opaque/new", "5");
  builder.File("opaque/sub/new", "6").File("opaque/.wh..wh..opq", "");

  ASSERT_OK(UnpackTar(builder.Take(), Whiteouts::kRemove));

  EXPECT_FALSE(Exists("gone"));
  EXPECT_FALSE(Exists("dir/gone"));
  EXPECT_FALSE(Exists("opaque/old"));
  EXPECT_FALSE(Exists("opaque/sub/old"));
  EXPECT_EQ(Read("opaque/new"), "5");
  EXPECT_EQ(Read("opaque/sub/new"), "6");
}

TEST_F(LayerSinkTest, TheLowestLayerDropsWhiteouts) {
  ASSERT_OK(UnpackTar(TarBuilder().File(".wh.x", "").File("d/.wh..wh..opq", "").Take(),
                      Whiteouts::kDiscard));

  EXPECT_THAT(*sys::ListDirectory(Root()), IsEmpty());
}

TEST_F(LayerSinkTest, TheRootEntryMustBeADirectory) {
  EXPECT_THAT(UnpackTar(TarBuilder().Symlink(".", "x").Take()),
              Fails(absl::StatusCode::kInvalidArgument, "not a directory"));
  ASSERT_OK(UnpackTar(TarBuilder().Directory("./", 0750).Take()));
  EXPECT_EQ(Look("").st_mode & 07777, 0750u);
}

TEST_F(LayerSinkTest, OwnersOutOfRangeAreRefused) {
  TarEntry entry = TarBuilder::Entry(EntryType::kRegular, "x", "", 0644);
  entry.uid = 4294967295;

  EXPECT_THAT(UnpackTar(TarBuilder().File(entry, "").Take()),
              Fails(absl::StatusCode::kInvalidArgument, "owner"));
}

TEST_F(LayerSinkTest, LimitsEndTheUnpacking) {
  SinkLimits limits;
  limits.max_entries = 2;
  EXPECT_THAT(UnpackTar(TarBuilder().File("a", "").File("b", "").File("c", "").Take(),
                        Whiteouts::kOverlay, limits),
              Fails(absl::StatusCode::kResourceExhausted, "entries"));
  limits = SinkLimits();
  limits.max_bytes = 10;
  EXPECT_THAT(UnpackTar(TarBuilder().File("a", "123456").File("b", "123456").Take(),
                        Whiteouts::kOverlay, limits),
              Fails(absl::StatusCode::kResourceExhausted, "bytes"));
}

}  // namespace
}  // namespace gantry::archive
