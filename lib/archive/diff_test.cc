#include "lib/archive/diff.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/testing/tar_builder.h"
#include "lib/archive/unpack.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::archive {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class DiffTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    ASSERT_OK(sys::MakeDirectories(Lower()));
    ASSERT_OK(sys::MakeDirectories(Upper()));
  }

  std::string Lower() const { return temp_.path() + "/lower"; }
  std::string Upper() const { return temp_.path() + "/upper"; }

  void Fill(const std::string& directory, TarBuilder& builder) {
    const std::string tar = builder.Take();
    sys::UniqueFd root(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    size_t offset = 0;
    ASSERT_OK(Unpack(
        [&](char* buffer, size_t size) -> absl::StatusOr<size_t> {
          const size_t count = tar.copy(buffer, size, offset);
          offset += count;
          return count;
        },
        std::move(root), UnpackOptions()));
  }

  // Names in the layer; directories end in '/'.
  std::vector<std::string> Names(DiffOptions options = {}) {
    sys::UniqueFd lower(::open(Lower().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    sys::UniqueFd upper(::open(Upper().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    tar_.clear();
    TarWriter writer([this](absl::string_view bytes) {
      tar_.append(bytes.data(), bytes.size());
      return absl::OkStatus();
    });
    EXPECT_OK(WriteDiff(lower.get(), upper.get(), options, writer));
    bool done = false;
    TarReader reader([&]() -> absl::StatusOr<absl::string_view> {
      if (done) return absl::string_view();
      done = true;
      return absl::string_view(tar_);
    });
    std::vector<std::string> names;
    TarEntry entry;
    for (;;) {
      absl::StatusOr<bool> more = reader.Next(&entry);
      EXPECT_OK(more);
      if (!more.ok() || !*more) return names;
      names.push_back(entry.path);
      if (entry.type == EntryType::kHardLink) names.back() += " => " + entry.link_target;
    }
  }

  sys::TempDir temp_ = *sys::TempDir::Create();
  std::string tar_;
};

TEST_F(DiffTest, EqualTreesHaveNoDifference) {
  for (const std::string& directory : {Lower(), Upper()}) {
    TarBuilder builder;
    builder.Directory("a").File("a/b", "1").Symlink("l", "a");
    Fill(directory, builder);
  }

  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(DiffTest, ShowsWhatWasAddedChangedAndRemoved) {
  TarBuilder before;
  before.Directory("keep").File("keep/same", "1").File("keep/edit", "1").File("gone", "1");
  before.Directory("gonedir").File("gonedir/x", "1").File("became", "file").File("mode", "1");
  Fill(Lower(), before);
  TarBuilder after;
  after.Directory("keep").File("keep/same", "1").File("keep/edit", "2").Directory("became");
  after.File("mode", "1", 0600).File("new", "3");
  Fill(Upper(), after);

  EXPECT_THAT(Names(), ElementsAre(".wh.gone", ".wh.gonedir", "became/", "keep/", "keep/edit",
                                   "mode", "new"));
}

TEST_F(DiffTest, AnEmptyLowerTreeGivesEverything) {
  TarBuilder after;
  after.Directory("d").File("d/f", "1").HardLink("d/g", "d/f");
  Fill(Upper(), after);

  EXPECT_THAT(Names(), ElementsAre("d/", "d/f", "d/g => d/f"));
}

TEST_F(DiffTest, OverlayMarksBecomeWhiteouts) {
  TarBuilder after;
  after.Directory("opaque").File("opaque/new", "1");
  Fill(Upper(), after);
  ASSERT_EQ(::mknod((Upper() + "/hidden").c_str(), S_IFCHR, ::makedev(0, 0)), 0);
  ASSERT_EQ(::setxattr((Upper() + "/opaque").c_str(), "trusted.overlay.opaque", "y", 1, 0), 0);
  DiffOptions options;
  options.overlay_upper = true;

  EXPECT_THAT(Names(options),
              ElementsAre(".wh.hidden", "opaque/", "opaque/.wh..wh..opq", "opaque/new"));
}

// Everything about a tree that a layer is to carry, one line a name.
void Describe(const std::string& root, const std::string& path, std::vector<std::string>* lines) {
  const std::string full = root + path;
  struct stat status = {};
  ASSERT_EQ(::lstat(full.c_str(), &status), 0) << full;
  std::string line = absl::StrCat(
      path, " mode=", absl::Hex(status.st_mode), " owner=", status.st_uid, ":", status.st_gid,
      " device=", status.st_rdev, " links=", S_ISDIR(status.st_mode) ? 0 : status.st_nlink,
      " mtime=", status.st_mtim.tv_sec, ".", status.st_mtim.tv_nsec);
  if (S_ISREG(status.st_mode)) {
    absl::StrAppend(&line, " size=", status.st_size,
                    " sparse=", status.st_blocks * 512 < status.st_size / 2);
    if (status.st_size < 100000) absl::StrAppend(&line, " text=", *sys::ReadFile(full));
  }
  if (S_ISLNK(status.st_mode)) {
    char target[256] = {};
    EXPECT_GT(::readlink(full.c_str(), target, sizeof(target) - 1), 0);
    absl::StrAppend(&line, " to=", target);
  } else {
    for (const char* name : {"user.note", "security.capability", "trusted.overlay.opaque"}) {
      char value[256];
      const ssize_t size = ::getxattr(full.c_str(), name, value, sizeof(value));
      if (size >= 0) {
        absl::StrAppend(&line, " ", name, "=",
                        absl::BytesToHexString(absl::string_view(value, size)));
      }
    }
  }
  lines->push_back(line);
  if (!S_ISDIR(status.st_mode)) return;
  std::vector<std::string> names = *sys::ListDirectory(full);
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) Describe(root, path + "/" + name, lines);
}

void SetTime(const std::string& path, long nanoseconds) {
  const struct timespec times[2] = {{1700000000, nanoseconds}, {1700000000, nanoseconds}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
}

TEST_F(DiffTest, ALayerCarriesAllThatATreeHasAndGivesTheSameLayerAgain) {
  const std::string up = Upper();
  const std::string long_name(200, 'n');
  const std::string deep = up + "/" + long_name + "/" + long_name;
  ASSERT_OK(sys::MakeDirectories(deep));
  ASSERT_OK(sys::WriteFileAtomically(deep + "/file", "behind a name of 400 bytes"));
  ASSERT_OK(sys::WriteFileAtomically(up + "/setuid", "s", 0755));
  ASSERT_EQ(::chown((up + "/setuid").c_str(), 3000000, 3000001), 0);  // Too large for octal fields.
  ASSERT_EQ(::chmod((up + "/setuid").c_str(), 04755), 0);
  ASSERT_OK(sys::WriteFileAtomically(up + "/first", "twice"));
  ASSERT_EQ(::link((up + "/first").c_str(), (up + "/second").c_str()), 0);
  ASSERT_EQ(::symlink("/somewhere/else", (up + "/link").c_str()), 0);
  ASSERT_EQ(::mknod((up + "/null").c_str(), S_IFCHR | 0666, ::makedev(1, 3)), 0);
  ASSERT_EQ(::mknod((up + "/disk").c_str(), S_IFBLK | 0600, ::makedev(8, 1)), 0);
  ASSERT_EQ(::mkfifo((up + "/pipe").c_str(), 0644), 0);
  ASSERT_OK(sys::WriteFileAtomically(up + "/b\xff\n name", "bytes"));
  // cap_net_raw+ep as version 2 of the attribute.
  const unsigned char capability[20] = {1, 0, 0, 2, 0, 0x20};
  ASSERT_OK(sys::WriteFileAtomically(up + "/ping", "p"));
  ASSERT_EQ(::setxattr((up + "/ping").c_str(), "security.capability", capability, 20, 0), 0);
  if (::setxattr((up + "/ping").c_str(), "user.note", "a\0b", 3, 0) != 0) {
    GTEST_LOG_(INFO) << "this file system has no user.* attributes";
  }
  // 40 MiB that are not there, and one block that is.
  sys::UniqueFd sparse(::open((up + "/sparse").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  ASSERT_EQ(::pwrite(sparse.get(), "x", 1, 40 << 20), 1);
  sparse.Reset();
  ASSERT_EQ(::mknod((up + "/hidden").c_str(), S_IFCHR | 0600, ::makedev(0, 0)), 0);
  ASSERT_OK(sys::MakeDirectories(up + "/opaque"));
  ASSERT_EQ(::setxattr((up + "/opaque").c_str(), "trusted.overlay.opaque", "y", 1, 0), 0);
  for (const char* name : {"setuid", "first", "ping", "sparse", "link", "null", "pipe", "opaque"}) {
    SetTime(up + "/" + name, 123456789);
  }
  SetTime(up + "/hidden", 0);
  DiffOptions options;
  options.overlay_upper = true;
  Names(options);
  const std::string layer = tar_;

  // As the unpacker does it for an overlay, the marks that need CAP_SYS_ADMIN included.
  const std::string again = temp_.path() + "/again";
  ASSERT_OK(sys::MakeDirectories(again));
  size_t offset = 0;
  UnpackOptions unpack;
  unpack.whiteouts = Whiteouts::kOverlay;
  absl::StatusOr<UnpackResult> result = Unpack(
      [&](char* buffer, size_t size) -> absl::StatusOr<size_t> {
        const size_t count = layer.copy(buffer, size, offset);
        offset += count;
        return count;
      },
      sys::UniqueFd(::open(again.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)), unpack);
  ASSERT_OK(result);
  for (const std::string& opaque : result->opaque_directories) {
    ASSERT_EQ(::setxattr((again + "/" + opaque).c_str(), "trusted.overlay.opaque", "y", 1, 0), 0);
  }
  SetTime(again + "/hidden", 0);  // A whiteout has no time of its own.

  std::vector<std::string> before, after;
  const std::vector<std::string> names_before = *sys::ListDirectory(up);
  const std::vector<std::string> names_after = *sys::ListDirectory(again);
  for (const std::string& name : names_before) Describe(up, "/" + name, &before);
  for (const std::string& name : names_after) Describe(again, "/" + name, &after);
  std::sort(before.begin(), before.end());
  std::sort(after.begin(), after.end());
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) EXPECT_EQ(before[i], after[i]);
  ASSERT_OK(sys::RemoveTree(up));
  ASSERT_OK(sys::Rename(again, up));
  Names(options);
  EXPECT_EQ(tar_ == layer, true) << "the second layer differs from the first";
}

TEST_F(DiffTest, TheSameTreeGivesTheSameBytes) {
  TarBuilder after;
  after.Directory("d").File("d/f", "1");
  Fill(Upper(), after);

  Names();
  const std::string first = tar_;
  Names();

  EXPECT_EQ(first, tar_);
}

}  // namespace
}  // namespace gantry::archive
