// The HTTP/2 connection against a scripted peer: what no well-behaved server would show us.

#include "ctl/wire/connection.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/testing/status_matchers.h"

namespace gantry::wire {
namespace {

using ::gantry::testing::Fails;

// Hands out prepared bytes, in pieces of a few at a time, and keeps what was written.
class ScriptedTransport final : public Transport {
 public:
  ScriptedTransport(std::string* incoming, std::string* written, size_t piece)
      : incoming_(incoming), written_(written), piece_(piece) {}

  absl::StatusOr<size_t> Read(char* buffer, size_t size, const Deadline&) override {
    const size_t count = std::min({size, piece_, incoming_->size()});
    std::copy_n(incoming_->begin(), count, buffer);
    incoming_->erase(0, count);
    return count;
  }
  absl::Status Write(absl::string_view bytes, const Deadline&) override {
    absl::StrAppend(written_, bytes);
    return absl::OkStatus();
  }

 private:
  std::string* incoming_;
  std::string* written_;
  size_t piece_;
};

std::string Frame(uint8_t type, uint8_t flags, uint32_t stream, const std::string& payload) {
  std::string frame;
  for (int shift = 16; shift >= 0; shift -= 8) {
    frame.push_back(static_cast<char>(payload.size() >> shift));
  }
  frame.push_back(static_cast<char>(type));
  frame.push_back(static_cast<char>(flags));
  for (int shift = 24; shift >= 0; shift -= 8) frame.push_back(static_cast<char>(stream >> shift));
  return frame + payload;
}

std::string Number32(uint32_t number) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(number >> shift));
  return bytes;
}

std::string Setting(uint16_t name, uint32_t value) {
  return std::string{static_cast<char>(name >> 8), static_cast<char>(name)} + Number32(value);
}

constexpr uint8_t kDataFrame = 0, kHeadersFrame = 1, kResetFrame = 3, kSettingsFrame = 4,
                  kPushFrame = 5, kPingFrame = 6, kGoAwayFrame = 7, kWindowFrame = 8,
                  kContinuationFrame = 9;

class ConnectionTest : public ::testing::Test {
 protected:
  ConnectionTest() : connection_(std::make_unique<ScriptedTransport>(&incoming_, &written_, 100)) {}

  void Open() { ASSERT_OK(connection_.OpenStream({{":method", "POST"}})); }
  absl::StatusOr<StreamEvent> Next() { return connection_.Next(Deadline::Never()); }
  // Types of the frames written so far, after the preface.
  std::string WrittenTypes() const {
    std::string types;
    for (size_t at = 24; at + 9 <= written_.size();) {
      const auto byte = [&](size_t i) { return static_cast<uint8_t>(written_[at + i]); };
      types.push_back(static_cast<char>('0' + byte(3)));
      at += 9 + (byte(0) << 16 | byte(1) << 8 | byte(2));
    }
    return types;
  }

  std::string incoming_;
  std::string written_;
  Connection connection_;
};

TEST_F(ConnectionTest, SendsPrefaceSettingsAndRequestInOneWrite) {
  Open();
  ASSERT_OK(connection_.SendData("hello", true, Deadline::Never()));
  EXPECT_EQ(written_, "") << "nothing leaves before it is complete";
  ASSERT_OK(connection_.Flush(Deadline::Never()));
  EXPECT_TRUE(absl::StartsWith(written_, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
  EXPECT_EQ(WrittenTypes(), "4810") << "settings, window update, headers, data";
}

TEST_F(ConnectionTest, JoinsHeadersWithTheirContinuations) {
  Open();
  std::string block;
  AppendHeader(":status", "200", &block);
  AppendHeader("x", std::string(100, 'y'), &block);
  incoming_ = Frame(kHeadersFrame, 0, 1, block.substr(0, 10)) +
              Frame(kContinuationFrame, 0, 1, block.substr(10, 20)) +
              Frame(kContinuationFrame, 4, 1, block.substr(30));
  const auto event = Next();
  ASSERT_OK(event);
  EXPECT_EQ(event->headers.size(), 2u);
  EXPECT_EQ(event->headers[1].value, std::string(100, 'y'));
}

TEST_F(ConnectionTest, NothingMayComeBetweenContinuations) {
  Open();
  incoming_ = Frame(kHeadersFrame, 0, 1, "") + Frame(kPingFrame, 0, 0, std::string(8, 'p'));
  EXPECT_THAT(Next(), Fails(absl::StatusCode::kInternal, "not continued"));
}

TEST_F(ConnectionTest, StripsPaddingAndPriority) {
  Open();
  std::string block;
  AppendHeader("a", "b", &block);
  incoming_ = Frame(kHeadersFrame, 4 | 8 | 0x20, 1, std::string("\x02") + "PRIOR" + block + "zz") +
              Frame(kDataFrame, 8, 1, std::string("\x03") + "data" + "zzz");
  ASSERT_OK(Next());
  const auto data = Next();
  ASSERT_OK(data);
  EXPECT_EQ(data->data, "data");
  incoming_ = Frame(kDataFrame, 8, 1, "\x09zz");
  EXPECT_THAT(Next(), Fails(absl::StatusCode::kInternal, "padding"));
}

TEST_F(ConnectionTest, AnswersPingsAndSettings) {
  Open();
  incoming_ = Frame(kSettingsFrame, 0, 0, Setting(5, 20000)) + Frame(kPingFrame, 0, 0, "pingpong") +
              Frame(kDataFrame, 1, 1, "x");
  ASSERT_OK(Next());
  EXPECT_TRUE(absl::StrContains(written_, Frame(kPingFrame, 1, 0, "pingpong")));
  EXPECT_TRUE(absl::StrContains(written_, Frame(kSettingsFrame, 1, 0, "")));
}

TEST_F(ConnectionTest, WaitsForThePeersWindow) {
  Open();
  // 65535 bytes may go at once; the rest needs a window for the stream and for the connection.
  incoming_ =
      Frame(kWindowFrame, 0, 1, Number32(100000)) + Frame(kWindowFrame, 0, 0, Number32(100000));
  ASSERT_OK(connection_.SendData(std::string(100000, 'Q'), true, Deadline::Never()));
  ASSERT_OK(connection_.Flush(Deadline::Never()));
  EXPECT_EQ(incoming_, "") << "both updates were needed";
  EXPECT_EQ(std::count(written_.begin(), written_.end(), 'Q'), 100000);
}

TEST_F(ConnectionTest, ASmallerWindowOfSettingsMayPushItBelowZero) {
  Open();
  ASSERT_OK(connection_.SendData(std::string(60000, 'd'), false, Deadline::Never()));
  // New initial window 10000: ours is now 65535 - 60000 - 55535 = -50000.
  incoming_ =
      Frame(kSettingsFrame, 0, 0, Setting(4, 10000)) + Frame(kWindowFrame, 0, 0, Number32(100000)) +
      Frame(kWindowFrame, 0, 1, Number32(50000)) + Frame(kWindowFrame, 0, 1, Number32(5545));
  ASSERT_OK(connection_.SendData(std::string(5535, 'e'), false, Deadline::Never()));
  ASSERT_OK(connection_.SendData(std::string(10, 'f'), true, Deadline::Never()));
  EXPECT_EQ(incoming_, "");
}

TEST_F(ConnectionTest, GivesItsOwnWindowBack) {
  Open();
  const std::string part(64 << 10, 'x');
  size_t bytes = 0;
  for (int i = 0; i < 256; ++i) {
    incoming_ = Frame(kDataFrame, i == 255 ? 1 : 0, 1, part);
    const auto event = Next();
    ASSERT_OK(event);
    bytes += event->data.size();
  }
  EXPECT_EQ(bytes, 16u << 20);
  const std::string types = WrittenTypes();
  EXPECT_GE(std::count(types.begin(), types.end(), '8'), 14) << "for the connection and the stream";
}

TEST_F(ConnectionTest, TellsResets) {
  Open();
  incoming_ = Frame(kResetFrame, 0, 1, Number32(7));
  const auto event = Next();
  ASSERT_OK(event);
  EXPECT_EQ(event->kind, StreamEvent::Kind::kReset);
  EXPECT_EQ(event->error_code, 7u);
}

TEST_F(ConnectionTest, AFarewellSparesTheCallItStillAnswers) {
  Open();
  incoming_ =
      Frame(kGoAwayFrame, 0, 0, Number32(1) + Number32(0)) + Frame(kDataFrame, 1, 1, "late");
  const auto event = Next();
  ASSERT_OK(event);
  EXPECT_EQ(event->data, "late");
  connection_.CloseStream();
  EXPECT_THAT(connection_.OpenStream({}), Fails(absl::StatusCode::kUnavailable, "stopping"));
}

TEST_F(ConnectionTest, AFarewellEndsACallItNeverSaw) {
  Open();
  incoming_ = Frame(kGoAwayFrame, 0, 0, Number32(0) + Number32(0));
  EXPECT_THAT(Next(), Fails(absl::StatusCode::kUnavailable, "stopping"));
}

TEST_F(ConnectionTest, FramesOfAnAbandonedStreamAreIgnored) {
  Open();
  connection_.CloseStream();
  Open();
  std::string block;
  AppendHeader("a", "b", &block);
  incoming_ = Frame(kHeadersFrame, 4, 1, block) + Frame(kDataFrame, 1, 1, "old") +
              Frame(kDataFrame, 1, 3, "new");
  const auto event = Next();
  ASSERT_OK(event);
  EXPECT_EQ(event->data, "new");
  EXPECT_TRUE(absl::StrContains(written_, Frame(kResetFrame, 0, 1, Number32(8)))) << "cancelled";
}

TEST_F(ConnectionTest, RefusesWhatBreaksTheProtocol) {
  for (const std::string& bad :
       {Frame(kPushFrame, 4, 1, Number32(2)), Frame(kContinuationFrame, 4, 1, ""),
        Frame(kDataFrame, 0, 0, "x"), Frame(kSettingsFrame, 0, 0, "odd"),
        Frame(kWindowFrame, 0, 0, Number32(0)), Frame(kWindowFrame, 0, 1, Number32(0x7FFFFFFF)),
        Frame(kPingFrame, 0, 0, "short"), Frame(kHeadersFrame, 4, 1, "\x80"),
        Frame(kSettingsFrame, 0, 0, Setting(4, 0x80000000)),
        Frame(kDataFrame, 1, 1, "end") + Frame(kDataFrame, 0, 1, "more")}) {
    std::string incoming = bad;
    std::string written;
    Connection connection(std::make_unique<ScriptedTransport>(&incoming, &written, 1000));
    ASSERT_OK(connection.OpenStream({}));
    absl::Status status;
    for (int i = 0; i < 3 && status.ok(); ++i) status = connection.Next(Deadline::Never()).status();
    EXPECT_THAT(status, Fails(absl::StatusCode::kInternal, "HTTP/2"));
  }
  std::string incoming = std::string("\x10\x00\x01", 3) + std::string(6, '\0');
  std::string written;
  Connection connection(std::make_unique<ScriptedTransport>(&incoming, &written, 1000));
  ASSERT_OK(connection.OpenStream({}));
  EXPECT_THAT(connection.Next(Deadline::Never()), Fails(absl::StatusCode::kInternal, "1048577"));
}

TEST_F(ConnectionTest, AClosedConnectionIsSaid) {
  Open();
  incoming_ = Frame(kDataFrame, 0, 1, "half").substr(0, 11);
  EXPECT_THAT(Next(), Fails(absl::StatusCode::kUnavailable, "closed the connection"));
}

}  // namespace
}  // namespace gantry::wire
