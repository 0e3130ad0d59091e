#include "lib/archive/compression.h"

#include <algorithm>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/sha256.h"
#include "lib/base/status.h"
#include "lib/testing/status_matchers.h"

namespace gantry::archive {
namespace {

std::string SomeBytes(size_t size) {
  std::string bytes;
  for (uint32_t state = 1; bytes.size() < size;) {
    state = state * 1664525 + 1013904223;
    bytes.append(state % 37, static_cast<char>(state >> 24));
  }
  bytes.resize(size);
  return bytes;
}

std::string Compress(Compression compression, absl::string_view bytes) {
  auto compressor = Compressor::Create(compression);
  EXPECT_OK(compressor);
  std::string out;
  EXPECT_OK((*compressor)->Write(bytes, &out));
  EXPECT_OK((*compressor)->Finish(&out));
  return out;
}

// Feeds `input` in pieces of `step` bytes and reads into a buffer of `room` bytes.
absl::StatusOr<std::string> Decompress(Compression compression, absl::string_view input,
                                       size_t step, size_t room) {
  ASSIGN_OR_RETURN(std::unique_ptr<Decompressor> decompressor, Decompressor::Create(compression));
  std::string out;
  std::string buffer(room, '\0');
  while (!input.empty()) {
    absl::string_view piece = input.substr(0, step);
    input.remove_prefix(piece.size());
    for (;;) {
      ASSIGN_OR_RETURN(size_t bytes, decompressor->Read(&piece, &buffer[0], room));
      if (bytes == 0) break;
      out.append(buffer, 0, bytes);
    }
    EXPECT_TRUE(piece.empty());
  }
  RETURN_IF_ERROR(decompressor->Finish());
  return out;
}

class CompressionTest : public ::testing::TestWithParam<Compression> {};

TEST_P(CompressionTest, ReturnsWhatWasWrittenWhateverThePieces) {
  const std::string bytes = SomeBytes(300000);
  const std::string packed = Compress(GetParam(), bytes);

  for (size_t step : {size_t{1}, size_t{7}, size_t{4096}, packed.size()}) {
    for (size_t room : {size_t{512}, size_t{65536}}) {
      absl::StatusOr<std::string> unpacked = Decompress(GetParam(), packed, step, room);
      ASSERT_OK(unpacked) << "step " << step << " room " << room;
      EXPECT_TRUE(*unpacked == bytes) << "step " << step << " room " << room;
    }
  }
}

class CheckedCompressionTest : public CompressionTest {};

TEST_P(CheckedCompressionTest, AStreamCutShortIsDataLoss) {
  std::string packed = Compress(GetParam(), SomeBytes(100000));

  for (size_t cut : {packed.size() - 1, packed.size() - 5, packed.size() / 2, size_t{3}}) {
    EXPECT_THAT(Decompress(GetParam(), packed.substr(0, cut), 4096, 65536),
                testing::HasCode(absl::StatusCode::kDataLoss))
        << cut;
  }
}

TEST_P(CheckedCompressionTest, AFlippedBitIsDataLoss) {
  std::string packed = Compress(GetParam(), SomeBytes(100000));
  packed[packed.size() / 2] ^= 0x10;

  EXPECT_THAT(Decompress(GetParam(), packed, 4096, 65536),
              testing::HasCode(absl::StatusCode::kDataLoss));
}

INSTANTIATE_TEST_SUITE_P(All, CheckedCompressionTest,
                         ::testing::Values(Compression::kGzip, Compression::kZstd),
                         [](const auto& info) { return std::string(CompressionName(info.param)); });

TEST_P(CompressionTest, SeveralStreamsInARowAreOne) {
  const std::string bytes = SomeBytes(50000);
  const std::string packed = Compress(GetParam(), bytes) + Compress(GetParam(), bytes);

  for (size_t step : {size_t{1}, size_t{100}, packed.size()}) {
    absl::StatusOr<std::string> unpacked = Decompress(GetParam(), packed, step, 4096);
    ASSERT_OK(unpacked);
    EXPECT_TRUE(*unpacked == bytes + bytes);
  }
}

TEST_P(CompressionTest, IsRecognisedByItsFirstBytes) {
  EXPECT_EQ(DetectCompression(Compress(GetParam(), "hello")), GetParam());
  EXPECT_THAT(ParseCompression(CompressionName(GetParam())), testing::IsOk());
}

INSTANTIATE_TEST_SUITE_P(All, CompressionTest,
                         ::testing::Values(Compression::kNone, Compression::kGzip,
                                           Compression::kZstd),
                         [](const auto& info) { return std::string(CompressionName(info.param)); });

TEST(GzipTest, ZerosAfterTheEndAreTapePaddingButOtherBytesAreNot) {
  const std::string packed = Compress(Compression::kGzip, "hello");

  EXPECT_THAT(Decompress(Compression::kGzip, packed + std::string(700, '\0'), 64, 64),
              testing::IsOk());
  EXPECT_THAT(Decompress(Compression::kGzip, packed + "junk", 64, 64),
              testing::HasCode(absl::StatusCode::kDataLoss));
}

TEST(Sha256Test, MatchesTheKnownDigestsAndGoesOn) {
  Sha256 hash;
  EXPECT_EQ(hash.digest().str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  hash.Update("ab");
  (void)hash.digest();
  hash.Update("c");
  EXPECT_EQ(hash.digest().str(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace gantry::archive
