#include "services/engine/archive.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/tar_writer.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "services/engine/tree_copy.h"

namespace gantry::engine {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;

class ArchiveTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<sys::TempDir> folder = sys::TempDir::Create();
    ASSERT_OK(folder);
    folder_.emplace(*std::move(folder));
    ASSERT_OK(sys::MakeDirectories(Path("root/dir/sub"), 0755));
    ASSERT_OK(sys::MakeDirectories(Path("outside"), 0755));
    Write("root/dir/file", std::string(300000, 'x'));
    Write("root/dir/sub/small", "small");
    Write("outside/secret", "secret");
    ASSERT_EQ(::symlink("/dir/file", Path("root/link").c_str()), 0);
    ASSERT_EQ(::link(Path("root/dir/file").c_str(), Path("root/dir/twin").c_str()), 0);
    root_ = *sys::Open(Path("root"), O_RDONLY | O_DIRECTORY);
  }
  std::string Path(const std::string& name) const {
    return absl::StrCat(folder_->path(), "/", name);
  }
  void Write(const std::string& name, const std::string& text) {
    ASSERT_OK(sys::WriteFileAtomically(Path(name), text, 0640));
  }
  absl::Status Send(const std::string& path, bool follow = false) {
    v1::GetArchiveRequest request;
    request.set_path(path);
    request.set_follow_link(follow);
    stat_.Clear();
    tar_.clear();
    return SendArchive(root_, path, request, [&](const v1::ArchiveChunk& chunk) {
      if (chunk.has_stat()) stat_ = chunk.stat();
      tar_ += chunk.data();
      return absl::OkStatus();
    });
  }
  absl::Status Receive(const std::string& path, const std::string& tar, bool keep_owner = true) {
    bool sent = false;
    return ReceiveArchive(root_, path, keep_owner, [&]() -> absl::StatusOr<absl::string_view> {
      if (std::exchange(sent, true)) return absl::string_view();
      return absl::string_view(tar);
    });
  }
  static std::string TarOf(const std::vector<archive::TarEntry>& entries,
                           const std::string& data = "") {
    std::string bytes;
    archive::TarWriter writer([&](absl::string_view piece) {
      bytes.append(piece.data(), piece.size());
      return absl::OkStatus();
    });
    for (archive::TarEntry entry : entries) {
      if (entry.type == archive::EntryType::kRegular) {
        entry.size_bytes = data.size();
        EXPECT_OK(writer.AddFile(entry, data));
      } else {
        EXPECT_OK(writer.Add(entry));
      }
    }
    EXPECT_OK(writer.Finish());
    return bytes;
  }

  std::optional<sys::TempDir> folder_;
  sys::UniqueFd root_;
  v1::PathStat stat_;
  std::string tar_;
};

TEST_F(ArchiveTest, ATreeGoesOutAndComesBackTheSame) {
  ASSERT_OK(Send("/dir"));
  EXPECT_EQ(stat_.name(), "dir");
  EXPECT_TRUE(stat_.directory());
  ASSERT_OK(sys::MakeDirectories(Path("root/copy"), 0755));

  ASSERT_OK(Receive("/copy", tar_));

  EXPECT_EQ(*sys::ReadFile(Path("root/copy/dir/file")), std::string(300000, 'x'));
  EXPECT_EQ(*sys::ReadFile(Path("root/copy/dir/sub/small")), "small");
  struct stat one = {}, two = {};
  ASSERT_EQ(::stat(Path("root/copy/dir/file").c_str(), &one), 0);
  ASSERT_EQ(::stat(Path("root/copy/dir/twin").c_str(), &two), 0);
  EXPECT_EQ(one.st_ino, two.st_ino) << "hard links stay";
  EXPECT_EQ(one.st_mode & 07777, 0640u);
}

TEST_F(ArchiveTest, ALinkIsALinkUnlessFollowed) {
  ASSERT_OK(Send("/link"));
  EXPECT_EQ(stat_.link_target(), "/dir/file");
  EXPECT_FALSE(stat_.directory());

  ASSERT_OK(Send("/link", true));
  EXPECT_EQ(stat_.size_bytes(), 300000u);
  EXPECT_EQ(stat_.name(), "link");
  EXPECT_GT(tar_.size(), 300000u);
}

TEST_F(ArchiveTest, LinksOutOfTheRootLeadNowhere) {
  ASSERT_EQ(::symlink("../outside", Path("root/escape").c_str()), 0);
  ASSERT_EQ(::symlink(Path("outside").c_str(), Path("root/absolute").c_str()), 0);

  EXPECT_THAT(Send("/escape/secret"), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(Send("/absolute/secret"), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(Send("/../outside/secret"), HasCode(absl::StatusCode::kNotFound));
  const std::string tar =
      TarOf({{.type = archive::EntryType::kRegular, .path = "planted", .permissions = 0644}}, "x");
  EXPECT_THAT(Receive("/escape", tar), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(Receive("/absolute", tar), HasCode(absl::StatusCode::kNotFound));
  EXPECT_FALSE(sys::Exists(Path("outside/planted")));
}

TEST_F(ArchiveTest, AnArchiveCannotWriteThroughALinkItBrings) {
  const std::string tar =
      TarOf({{.type = archive::EntryType::kSymlink, .path = "way", .link_target = Path("outside")},
             {.type = archive::EntryType::kRegular, .path = "way/planted", .permissions = 0644}},
            "x");

  (void)Receive("/dir", tar);

  EXPECT_FALSE(sys::Exists(Path("outside/planted")));
}

TEST_F(ArchiveTest, AnEntryThatClimbsIsRefused) {
  const std::string tar = TarOf(
      {{.type = archive::EntryType::kRegular, .path = "../planted", .permissions = 0644}}, "x");

  EXPECT_THAT(Receive("/dir", tar), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_FALSE(sys::Exists(Path("root/planted")));
}

TEST_F(ArchiveTest, OwnersAreRootsUnlessKept) {
  REQUIRE_ROOT();
  const std::string tar = TarOf({{.type = archive::EntryType::kRegular,
                                  .path = "owned",
                                  .permissions = 0644,
                                  .uid = 33,
                                  .gid = 34}},
                                "x");
  struct stat info = {};
  ASSERT_OK(Receive("/dir", tar, false));
  ASSERT_EQ(::stat(Path("root/dir/owned").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 0u);
  ASSERT_OK(Receive("/dir", tar, true));
  ASSERT_EQ(::stat(Path("root/dir/owned").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 33u);
}

TEST_F(ArchiveTest, MissingPathsSayWhatPeopleKnow) {
  EXPECT_THAT(Send("/nope"),
              Fails(absl::StatusCode::kNotFound, "Could not find the file /nope in container"));
  EXPECT_THAT(Receive("/nope", TarOf({})), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(Receive("/dir", "no tar at all, but long enough to be looked at"),
              HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(ArchiveTest, CopyTreeKeepsOwnersModesAndLinks) {
  REQUIRE_ROOT();
  ASSERT_EQ(::chown(Path("root/dir/file").c_str(), 7, 8), 0);
  ASSERT_EQ(::chmod(Path("root/dir").c_str(), 02750), 0);
  ASSERT_EQ(::symlink("file", Path("root/dir/near").c_str()), 0);
  ASSERT_OK(sys::MakeDirectories(Path("copy"), 0700));
  absl::StatusOr<sys::UniqueFd> from = sys::Open(Path("root/dir"), O_RDONLY | O_DIRECTORY);
  absl::StatusOr<sys::UniqueFd> to = sys::Open(Path("copy"), O_RDONLY | O_DIRECTORY);
  ASSERT_OK(from);
  ASSERT_OK(to);

  ASSERT_OK(CopyTree(*from, *to));

  struct stat info = {};
  ASSERT_EQ(::stat(Path("copy").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 02750u);
  ASSERT_EQ(::stat(Path("copy/file").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 7u);
  EXPECT_EQ(info.st_size, 300000);
  ASSERT_EQ(::lstat(Path("copy/near").c_str(), &info), 0);
  EXPECT_TRUE(S_ISLNK(info.st_mode));
}

}  // namespace
}  // namespace gantry::engine
