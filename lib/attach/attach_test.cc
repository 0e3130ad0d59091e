#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "lib/attach/client.h"
#include "lib/attach/protocol.h"
#include "lib/sys/socket.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::attach {
namespace {

using ::gantry::testing::Fails;

// The one frame in `bytes`.
Frame Only(FrameParser& parser, absl::string_view bytes) {
  parser.Append(bytes);
  Frame frame;
  EXPECT_TRUE(parser.Next(&frame).value());
  return frame;
}

TEST(AttachProtocolTest, HelloSurvivesTheWire) {
  std::string wire;
  AppendHello({"web", "probe", true, false, true, true, true, 80, 24}, &wire);
  FrameParser parser;
  const Frame frame = Only(parser, wire);
  ASSERT_EQ(frame.type, FrameType::kHello);

  const Hello hello = ParseHello(frame.payload).value();

  EXPECT_EQ(hello.container_id, "web");
  EXPECT_EQ(hello.exec_id, "probe");
  EXPECT_TRUE(hello.want_stdin);
  EXPECT_FALSE(hello.want_stdout);
  EXPECT_TRUE(hello.want_stderr);
  EXPECT_TRUE(hello.flow_control);
  EXPECT_TRUE(hello.close_stdin_at_end);
  EXPECT_EQ(hello.columns, 80);
  EXPECT_EQ(hello.rows, 24);
}

TEST(AttachProtocolTest, ExitErrorLostAndResizeSurviveTheWire) {
  std::string wire;
  const absl::Time now = absl::FromUnixNanos(1'800'000'000'123'456'789);
  AppendExit({137, 9, now, "oom"}, &wire);
  AppendError(absl::NotFoundError("no process 'x'"), &wire);
  AppendLost(1ull << 40, &wire);
  AppendResize(65535, 1, &wire);
  FrameParser parser;
  Frame frame = Only(parser, wire);
  const Exit exit = ParseExit(frame.payload).value();
  EXPECT_EQ(exit.code, 137);
  EXPECT_EQ(exit.signal, 9);
  EXPECT_EQ(exit.time, now);
  EXPECT_EQ(exit.reason, "oom");
  ASSERT_TRUE(parser.Next(&frame).value());
  EXPECT_THAT(ParseError(frame.payload), Fails(absl::StatusCode::kNotFound, "no process 'x'"));
  ASSERT_TRUE(parser.Next(&frame).value());
  EXPECT_EQ(ParseLost(frame.payload).value(), 1ull << 40);
  ASSERT_TRUE(parser.Next(&frame).value());
  EXPECT_EQ(ParseResize(frame.payload).value().first, 65535);
  EXPECT_FALSE(parser.Next(&frame).value());
}

TEST(AttachProtocolTest, FramesArriveInAnyPieces) {
  std::string wire;
  AppendBytes(FrameType::kStdout, std::string(200'000, 'x'), &wire);
  FrameParser parser;
  size_t total = 0;
  int frames = 0;
  for (size_t at = 0; at < wire.size(); at += 777) {
    parser.Append(absl::string_view(wire).substr(at, 777));
    for (Frame frame; parser.Next(&frame).value(); ++frames) total += frame.payload.size();
  }
  EXPECT_EQ(total, 200'000u);
  EXPECT_EQ(frames, 4);
}

TEST(AttachProtocolTest, WrongHeadersAreRefused) {
  Frame frame;
  FrameParser reserved;
  reserved.Append(absl::string_view("\x10\x00\x01\x00\x00\x00\x00\x00", 8));
  EXPECT_THAT(reserved.Next(&frame), Fails(absl::StatusCode::kInvalidArgument, "reserved"));
  FrameParser large;
  large.Append(absl::string_view("\x10\x00\x00\x00\x00\x01\x00\x01", 8));
  EXPECT_THAT(large.Next(&frame), Fails(absl::StatusCode::kInvalidArgument, "65537"));
  EXPECT_THAT(ParseHello(""), Fails(absl::StatusCode::kInvalidArgument, "container id"));
  EXPECT_FALSE(ParseError("").ok());
}

// A shim that does what the test says, on a thread.
class AttachClientTest : public ::testing::Test {
 protected:
  void Serve(std::function<void(int)> shim) {
    listener_ = sys::ListenUnix(path_).value();
    thread_ = std::thread([this, shim = std::move(shim)] {
      const sys::UniqueFd socket = sys::Accept(listener_).value();
      shim(socket.get());
    });
  }
  void TearDown() override {
    if (thread_.joinable()) thread_.join();
  }
  static std::string ReadHello(int socket) {
    char buffer[512];
    const ssize_t got = ::read(socket, buffer, sizeof buffer);
    return got > 0 ? std::string(buffer, static_cast<size_t>(got)) : "";
  }
  static void Send(int socket, const std::string& wire) {
    EXPECT_EQ(::send(socket, wire.data(), wire.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(wire.size()));
  }

  sys::TempDir directory_ = sys::TempDir::Create().value();
  std::string path_ = absl::StrCat(directory_.path(), "/s");
  sys::UniqueFd listener_;
  std::thread thread_;
};

TEST_F(AttachClientTest, ReceivesOutputAndExitInOrder) {
  Serve([](int socket) {
    EXPECT_EQ(ReadHello(socket).substr(0, 4), "GAT1");
    std::string wire;
    AppendAccepted({true, true, 42}, &wire);
    AppendBytes(FrameType::kStdout, "out", &wire);
    AppendBytes(FrameType::kStderr, "err", &wire);
    AppendExit({3, 0, absl::Now(), "exited"}, &wire);
    Send(socket, wire);
  });

  const auto client = Client::Connect(absl::StrCat("unix://", path_), {"web"}).value();
  EXPECT_TRUE(client->accepted().terminal);
  EXPECT_EQ(client->accepted().pid, 42);
  Event event;
  ASSERT_OK(client->WaitNext(&event, absl::Seconds(10)));
  EXPECT_EQ(event.bytes, "out");
  ASSERT_OK(client->WaitNext(&event, absl::Seconds(10)));
  EXPECT_EQ(event.kind, Event::Kind::kStderr);
  ASSERT_OK(client->WaitNext(&event, absl::Seconds(10)));
  ASSERT_EQ(event.kind, Event::Kind::kExit);
  EXPECT_EQ(event.exit.code, 3);
  EXPECT_THAT(client->WaitNext(&event), Fails(absl::StatusCode::kFailedPrecondition, "ended"));
}

TEST_F(AttachClientTest, TheShimsErrorIsReturned) {
  Serve([](int socket) {
    ReadHello(socket);
    std::string wire;
    AppendError(absl::NotFoundError("container 'web' is not here"), &wire);
    Send(socket, wire);
  });
  EXPECT_THAT(Client::Connect(path_, {"web"}), Fails(absl::StatusCode::kNotFound, "not here"));
}

TEST_F(AttachClientTest, ADyingShimIsAnEvent) {
  Serve([](int socket) {
    ReadHello(socket);
    std::string wire;
    AppendAccepted({}, &wire);
    Send(socket, wire);
  });
  const auto client = Client::Connect(path_, {"web"}).value();
  Event event;
  ASSERT_OK(client->WaitNext(&event, absl::Seconds(10)));
  EXPECT_EQ(event.kind, Event::Kind::kClosed);
}

TEST_F(AttachClientTest, InputThatDoesNotFitIsQueuedNotBlocking) {
  absl::Time done = absl::InfiniteFuture();
  constexpr size_t kBytes = 4 << 20;
  Serve([&](int socket) {
    ReadHello(socket);
    std::string wire;
    AppendAccepted({}, &wire);
    Send(socket, wire);
    FrameParser parser;
    size_t total = 0;
    char buffer[65536];
    for (ssize_t got; total < kBytes && (got = ::read(socket, buffer, sizeof buffer)) > 0;) {
      parser.Append(absl::string_view(buffer, static_cast<size_t>(got)));
      for (Frame frame; parser.Next(&frame).value();) total += frame.payload.size();
    }
    EXPECT_EQ(total, kBytes);
    done = absl::Now();
  });
  const auto client = Client::Connect(path_, {"web"}).value();

  client->SendStdin(std::string(kBytes, 'i'));
  Event event;
  ASSERT_OK(client->WaitNext(&event, absl::Seconds(20)));

  EXPECT_EQ(event.kind, Event::Kind::kClosed);
  EXPECT_FALSE(client->wants_write());
}

}  // namespace
}  // namespace gantry::attach
