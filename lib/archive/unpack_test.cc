#include "lib/archive/unpack.h"

#include <fcntl.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/sha256.h"
#include "lib/archive/testing/tar_builder.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::archive {
namespace {

using testing::Fails;
using testing::HasCode;

class UnpackTest : public ::testing::TestWithParam<Compression> {
 protected:
  void SetUp() override { REQUIRE_ROOT(); }

  absl::StatusOr<UnpackResult> Run(const std::string& bytes, UnpackOptions options = {}) {
    sys::UniqueFd root(::open(temp_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    size_t offset = 0;
    return Unpack(
        [&](char* buffer, size_t size) -> absl::StatusOr<size_t> {
          const size_t count = bytes.copy(buffer, std::min(size, size_t{1000}), offset);
          offset += count;
          return count;
        },
        std::move(root), options);
  }

  sys::TempDir temp_ = *sys::TempDir::Create();
};

TEST_P(UnpackTest, TheDiffIdCoversThePaddingAfterTheEnd) {
  const std::string big(3 << 20, 'b');
  std::string tar = TarBuilder().File("small", "1").File("big", big).Take();
  tar += std::string(20480, '\0');

  absl::StatusOr<UnpackResult> result = Run(CompressAll(GetParam(), tar));

  ASSERT_OK(result);
  EXPECT_EQ(result->diff_id, Sha256Of(tar));
  EXPECT_EQ(result->tar_bytes, tar.size());
  EXPECT_EQ(result->entries, 2u);
  EXPECT_EQ(*sys::ReadFile(temp_.path() + "/big"), big);
}

TEST_P(UnpackTest, ATarCutShortIsAnError) {
  const std::string tar = TarBuilder().File("big", std::string(1 << 20, 'b')).Take();

  EXPECT_FALSE(Run(CompressAll(GetParam(), tar.substr(0, 700000))).ok());
}

INSTANTIATE_TEST_SUITE_P(All, UnpackTest,
                         ::testing::Values(Compression::kNone, Compression::kGzip,
                                           Compression::kZstd),
                         [](const auto& info) { return std::string(CompressionName(info.param)); });

using UnpackLimitsTest = UnpackTest;

TEST_F(UnpackLimitsTest, TheDeclaredCompressionIsTakenAtItsWord) {
  UnpackOptions options;
  options.compression = Compression::kGzip;

  EXPECT_THAT(Run(TarBuilder().File("x", "1").Take(), options),
              HasCode(absl::StatusCode::kDataLoss));
}

TEST_F(UnpackLimitsTest, ABombIsStopped) {
  const std::string bomb =
      CompressAll(Compression::kZstd, TarBuilder().File("zeros", std::string(300 << 20, 0)).Take());

  EXPECT_THAT(Run(bomb), Fails(absl::StatusCode::kResourceExhausted, "times its size"));
}

TEST_F(UnpackLimitsTest, AFailingSourceEndsEverything) {
  sys::UniqueFd root(::open(temp_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  int calls = 0;

  absl::StatusOr<UnpackResult> result = Unpack(
      [&](char* buffer, size_t size) -> absl::StatusOr<size_t> {
        if (++calls == 2) return absl::UnavailableError("the connection was reset");
        const std::string tar = TarBuilder().File("x", std::string(100, 'x')).Take();
        return tar.copy(buffer, 512);
      },
      std::move(root), UnpackOptions());

  EXPECT_THAT(result, Fails(absl::StatusCode::kUnavailable, "reset"));
}

TEST_F(UnpackLimitsTest, AnEmptyStreamIsAnEmptyLayer) {
  absl::StatusOr<UnpackResult> result = Run("");

  ASSERT_OK(result);
  EXPECT_EQ(result->diff_id, Sha256Of(""));
}

}  // namespace
}  // namespace gantry::archive
