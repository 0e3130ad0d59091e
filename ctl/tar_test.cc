#include "ctl/tar.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::ctl {
namespace {

using ::gantry::testing::Fails;
using ::testing::ElementsAre;

TarSource SourceOf(std::string* bytes) {
  return [bytes](char* buffer, size_t size) -> absl::StatusOr<size_t> {
    const size_t count = std::min({size, bytes->size(), size_t{1000}});
    std::copy_n(bytes->begin(), count, buffer);
    bytes->erase(0, count);
    return count;
  };
}

class TarTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<sys::TempDir> directory = sys::TempDir::Create();
    ASSERT_OK(directory);
    directory_.emplace(*std::move(directory));
    root_ = directory_->path();
    ASSERT_OK(sys::MakeDirectories(In("out")));
  }
  std::string In(absl::string_view name) const { return absl::StrCat(root_, "/", name); }

  std::string Pack(const std::string& path, const std::string& top, bool follow = false) {
    std::string bytes;
    PackOptions options;
    options.top = top;
    options.follow_link = follow;
    const auto packed = PackTree(path, options, [&](absl::string_view part) {
      absl::StrAppend(&bytes, part);
      return absl::OkStatus();
    });
    EXPECT_OK(packed);
    return bytes;
  }

  absl::StatusOr<UnpackResult> Unpack(std::string bytes, UnpackOptions options = {}) {
    TarReader reader(SourceOf(&bytes));
    return UnpackTree(reader, In("out"), options);
  }

  // An archive of these entries; files contain their own name.
  static std::string Archive(const std::vector<TarEntry>& entries) {
    std::string bytes;
    TarWriter writer([&](absl::string_view part) {
      absl::StrAppend(&bytes, part);
      return absl::OkStatus();
    });
    for (TarEntry entry : entries) {
      if (entry.type == TarEntry::Type::kFile) entry.size_bytes = entry.name.size();
      EXPECT_OK(writer.Entry(entry));
      if (entry.type == TarEntry::Type::kFile) {
        EXPECT_OK(writer.Data(entry.name));
        EXPECT_OK(writer.EndData());
      }
    }
    EXPECT_OK(writer.Finish());
    return bytes;
  }
  static TarEntry Entry(TarEntry::Type type, const std::string& name, const std::string& link = "",
                        uint32_t mode = 0644) {
    TarEntry entry;
    entry.type = type;
    entry.name = name;
    entry.link = link;
    entry.mode = mode;
    return entry;
  }

  std::optional<sys::TempDir> directory_;
  std::string root_;
};

constexpr auto kFile = TarEntry::Type::kFile;
constexpr auto kDirectory = TarEntry::Type::kDirectory;
constexpr auto kSymlink = TarEntry::Type::kSymlink;
constexpr auto kHardLink = TarEntry::Type::kHardLink;

TEST_F(TarTest, TreesSurviveTheRoundTrip) {
  const std::string deep = "tree/" + std::string(90, 'd') + "/" + std::string(90, 'e');
  ASSERT_OK(sys::MakeDirectories(In(deep)));
  ASSERT_OK(sys::WriteFileAtomically(In(deep) + "/file", std::string(100000, 'x'), 0640));
  ASSERT_OK(sys::WriteFileAtomically(In("tree/empty"), ""));
  ASSERT_EQ(::symlink("nowhere/at/all", In("tree/link").c_str()), 0);
  ASSERT_EQ(::link(In("tree/empty").c_str(), In("tree/twin").c_str()), 0);
  ASSERT_EQ(::chmod(In("tree").c_str(), 0750), 0);

  const auto result = Unpack(Pack(In("tree"), "tree"));
  ASSERT_OK(result);

  EXPECT_EQ(result->bytes, 100000u);
  const std::string out = In("out/") + deep + "/file";
  EXPECT_EQ(sys::ReadFile(out)->size(), 100000u);
  struct stat status;
  ASSERT_EQ(::stat(out.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640u);
  ASSERT_EQ(::stat(In("out/tree").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0750u);
  ASSERT_EQ(::stat(In("out/tree/twin").c_str(), &status), 0);
  EXPECT_EQ(status.st_nlink, 2u) << "hard links stay hard links";
  char link[100] = {};
  EXPECT_GT(::readlink(In("out/tree/link").c_str(), link, sizeof link - 1), 0);
  EXPECT_STREQ(link, "nowhere/at/all");
}

TEST_F(TarTest, TarUnderstandsUsAndWeUnderstandTar) {
  const std::string name(150, 'n');
  ASSERT_OK(sys::MakeDirectories(In("tree/sub")));
  ASSERT_OK(sys::WriteFileAtomically(In("tree/sub/" + name), "hello"));
  ASSERT_OK(sys::WriteFileAtomically(In("ours.tar"), Pack(In("tree"), "tree")));
  const std::string list =
      absl::StrCat("tar -tf ", In("ours.tar"), " | grep -q 'tree/sub/", name, "$'");
  EXPECT_EQ(::system(list.c_str()), 0);
  for (const char* format : {"gnu", "pax"}) {
    const std::string make =
        absl::StrCat("tar -C ", root_, " --format=", format, " -cf ", In("theirs.tar"), " tree");
    ASSERT_EQ(::system(make.c_str()), 0);
    ASSERT_OK(sys::RemoveTree(In("out/tree")));
    const auto result = Unpack(*sys::ReadFile(In("theirs.tar")));
    ASSERT_OK(result) << format;
    EXPECT_EQ(*sys::ReadFile(In("out/tree/sub/" + name)), "hello") << format;
  }
}

TEST_F(TarTest, TheTopCanBeRenamedOrDropped) {
  const std::string archive = Archive(
      {Entry(kDirectory, "a/", "", 0755), Entry(kFile, "a/f"), Entry(kHardLink, "a/g", "a/f")});
  UnpackOptions options;
  options.top = "b";
  ASSERT_OK(Unpack(archive, options));
  EXPECT_EQ(*sys::ReadFile(In("out/b/f")), "a/f");
  EXPECT_EQ(*sys::ReadFile(In("out/b/g")), "a/f");
  options.top = "";
  ASSERT_OK(Unpack(archive, options));
  EXPECT_EQ(*sys::ReadFile(In("out/f")), "a/f");
}

TEST_F(TarTest, HostileNamesStayInside) {
  EXPECT_THAT(Unpack(Archive({Entry(kFile, "../evil")})),
              Fails(absl::StatusCode::kPermissionDenied, "leads out"));
  EXPECT_THAT(Unpack(Archive({Entry(kFile, "a/../../evil")})),
              Fails(absl::StatusCode::kPermissionDenied, "leads out"));
  ASSERT_OK(Unpack(Archive({Entry(kFile, "/abs/olute")})));
  EXPECT_EQ(*sys::ReadFile(In("out/abs/olute")), "/abs/olute");
  EXPECT_FALSE(sys::Exists(In("evil")));
}

TEST_F(TarTest, HostileLinksAreNotFollowedOut) {
  ASSERT_OK(sys::MakeDirectories(In("outside")));
  for (const std::string& target : {In("outside"), std::string("../outside")}) {
    EXPECT_FALSE(Unpack(Archive({Entry(kSymlink, "l", target), Entry(kFile, "l/evil")})).ok());
    EXPECT_FALSE(Unpack(Archive({Entry(kSymlink, "l", target), Entry(kFile, "l/new/evil")})).ok());
    ASSERT_OK(sys::WriteFileAtomically(In("outside/victim"), "precious"));
    EXPECT_FALSE(
        Unpack(Archive({Entry(kSymlink, "l", target), Entry(kHardLink, "h", "l/victim")})).ok());
    // The link itself is replaced, not written through.
    ASSERT_OK(Unpack(Archive({Entry(kSymlink, "v", target + "/victim"), Entry(kFile, "v")})));
    EXPECT_EQ(*sys::ReadFile(In("outside/victim")), "precious");
    // A directory over a link that leads out: refused when it is finished, and untouched.
    EXPECT_FALSE(
        Unpack(Archive({Entry(kSymlink, "d", target), Entry(kDirectory, "d", "", 0777)})).ok());
  }
  EXPECT_THAT(*sys::ListDirectory(In("outside")), ElementsAre("victim"));
}

TEST_F(TarTest, SetIdBitsAndSpecialFilesAreLeftOut) {
  const auto result =
      Unpack(Archive({Entry(kFile, "suid", "", 04755), Entry(TarEntry::Type::kSpecial, "fifo")}));
  ASSERT_OK(result);
  EXPECT_THAT(result->skipped, ElementsAre("fifo"));
  struct stat status;
  ASSERT_EQ(::stat(In("out/suid").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0755u);
}

TEST_F(TarTest, FilesAndDirectoriesDoNotReplaceEachOther) {
  ASSERT_OK(Unpack(Archive({Entry(kDirectory, "d/", "", 0755), Entry(kFile, "f")})));
  EXPECT_THAT(Unpack(Archive({Entry(kFile, "d")})),
              Fails(absl::StatusCode::kFailedPrecondition, "cannot overwrite a directory"));
  EXPECT_THAT(Unpack(Archive({Entry(kDirectory, "f/", "", 0755)})),
              Fails(absl::StatusCode::kFailedPrecondition, "cannot overwrite a file"));
  ASSERT_OK(Unpack(Archive({Entry(kDirectory, "d/", "", 0711), Entry(kFile, "f")})));
}

TEST_F(TarTest, FollowsTheTopLinkOnlyWhenAsked) {
  ASSERT_OK(sys::WriteFileAtomically(In("file"), "content"));
  ASSERT_EQ(::symlink("file", In("link").c_str()), 0);
  ASSERT_OK(Unpack(Pack(In("link"), "x")));
  char target[10] = {};
  EXPECT_EQ(::readlink(In("out/x").c_str(), target, sizeof target), 4);
  ASSERT_OK(Unpack(Pack(In("link"), "x", true)));
  EXPECT_EQ(*sys::ReadFile(In("out/x")), "content");
}

TEST_F(TarTest, BrokenArchivesAreRefused) {
  const std::string good = Archive({Entry(kFile, "file")});
  EXPECT_THAT(Unpack(good.substr(0, 515)), Fails(absl::StatusCode::kInvalidArgument, "cut short"));
  EXPECT_THAT(Unpack(good.substr(0, 100)), Fails(absl::StatusCode::kInvalidArgument, "cut short"));
  std::string flipped = good;
  flipped[0] = 'F';
  EXPECT_THAT(Unpack(flipped), Fails(absl::StatusCode::kInvalidArgument, "checksum"));
  EXPECT_THAT(Unpack(std::string(1024, 'j')), Fails(absl::StatusCode::kInvalidArgument, ""));
  EXPECT_OK(Unpack(""));
}

}  // namespace
}  // namespace gantry::ctl
