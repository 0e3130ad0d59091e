#include "lib/archive/diff.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <string>
#include <vector>

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
