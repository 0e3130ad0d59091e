#include "lib/ttrpc/frame.h"

#include <string.h>

#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::ttrpc {
namespace {

using ::gantry::testing::Fails;

// Hands `bytes` over in pieces of `step`.
std::vector<FrameReader::Frame> ReadFrames(FrameReader& reader, absl::string_view bytes,
                                           size_t step) {
  std::vector<FrameReader::Frame> frames;
  while (!bytes.empty()) {
    const auto [space, size] = reader.Space();
    const size_t count = std::min({step, size, bytes.size()});
    memcpy(space, bytes.data(), count);
    reader.Commit(count);
    bytes.remove_prefix(count);
    for (FrameReader::Frame frame; reader.Next(&frame);) frames.push_back(frame);
  }
  return frames;
}

TEST(FrameTest, ARequestSurvivesTheWire) {
  const std::string frame = EncodeRequestFrame(7, {"containerd.task.v2.Task",
                                                   "State",
                                                   "body",
                                                   5'000'000'000,
                                                   {{"containerd-namespace-ttrpc", "moby"}}})
                                .value();
  const FrameHeader header = DecodeHeader(frame.data());
  EXPECT_EQ(header.body_bytes, frame.size() - kHeaderBytes);
  EXPECT_EQ(header.stream_id, 7u);
  EXPECT_EQ(header.type, 1);
  EXPECT_EQ(header.flags, 0);

  const Request request = DecodeRequest(absl::string_view(frame).substr(kHeaderBytes)).value();

  EXPECT_EQ(request.service, "containerd.task.v2.Task");
  EXPECT_EQ(request.method, "State");
  EXPECT_EQ(request.payload, "body");
  EXPECT_EQ(request.timeout_nanos, 5'000'000'000);
  ASSERT_EQ(request.metadata.size(), 1u);
  EXPECT_EQ(request.metadata[0].second, "moby");
}

TEST(FrameTest, AStatusSurvivesTheWire) {
  const std::string frame = EncodeResponseFrame(1, absl::NotFoundError("no container 'x'"), "");
  EXPECT_THAT(DecodeResponse(absl::string_view(frame).substr(kHeaderBytes)),
              Fails(absl::StatusCode::kNotFound, "no container 'x'"));
}

TEST(FrameTest, AnEmptyAnswerIsAnAnswer) {
  const std::string frame = EncodeResponseFrame(1, absl::OkStatus(), "");
  EXPECT_EQ(frame.size(), kHeaderBytes);
  EXPECT_EQ(DecodeResponse("").value(), "");
}

TEST(FrameTest, AnAnswerOverTheLimitBecomesAnError) {
  const std::string frame = EncodeResponseFrame(3, absl::OkStatus(), std::string(5 << 20, 'x'));
  EXPECT_THAT(DecodeResponse(absl::string_view(frame).substr(kHeaderBytes)),
              Fails(absl::StatusCode::kResourceExhausted, "4194304"));
  EXPECT_THAT(EncodeRequestFrame(1, {"s", "m", std::string(5 << 20, 'x')}),
              Fails(absl::StatusCode::kResourceExhausted, "s/m"));
}

TEST(FrameReaderTest, FindsFramesHoweverTheyArrive) {
  std::string wire;
  for (uint32_t stream = 1; stream < 9; stream += 2) {
    wire += EncodeRequestFrame(stream, {"s", "m", std::string(stream * 3000, 'p')}).value();
  }
  for (const size_t step : {size_t{1}, size_t{7}, size_t{4096}, wire.size()}) {
    FrameReader reader;
    const std::vector<FrameReader::Frame> frames = ReadFrames(reader, wire, step);
    ASSERT_EQ(frames.size(), 4u) << step;
    EXPECT_EQ(frames[3].header.stream_id, 7u);
    EXPECT_EQ(DecodeRequest(frames[3].body)->payload.size(), 21000u);
  }
}

TEST(FrameReaderTest, SkipsWhatIsTooLongAndGoesOn) {
  std::string wire("\x00\x50\x00\x00\x00\x00\x00\x01\x01\x00", 10);
  wire += std::string(5 << 20, 'x');
  wire += EncodeRequestFrame(3, {"s", "m", ""}).value();
  FrameReader reader;

  const std::vector<FrameReader::Frame> frames = ReadFrames(reader, wire, 4096);

  ASSERT_EQ(frames.size(), 2u);
  EXPECT_TRUE(frames[0].oversized);
  EXPECT_EQ(frames[0].header.stream_id, 1u);
  EXPECT_FALSE(frames[1].oversized);
  EXPECT_EQ(frames[1].header.stream_id, 3u);
}

TEST(FrameTest, GarbageIsNoRequest) {
  EXPECT_THAT(DecodeRequest("\xff\xff"), Fails(absl::StatusCode::kInvalidArgument, "malformed"));
  EXPECT_THAT(DecodeResponse("\x0b"), Fails(absl::StatusCode::kInternal, "malformed"));
}

}  // namespace
}  // namespace gantry::ttrpc
