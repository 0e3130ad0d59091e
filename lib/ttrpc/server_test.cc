#include "lib/ttrpc/server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "lib/sys/socket.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "lib/ttrpc/client.h"

namespace gantry::ttrpc {
namespace {

using ::gantry::testing::Fails;

// Server and client on one loop, so that every step is decided by the test.
class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = sys::EventLoop::Create().value();
    path_ = absl::StrCat(directory_.path(), "/s");
    server_.emplace(*loop_, [this](const Request& request, Responder responder) {
      if (request.method == "Echo") responder.Reply(absl::OkStatus(), request.payload);
      if (request.method == "Fail") responder.Reply(absl::NotFoundError("gone"));
      if (request.method == "Park") parked_.push_back(responder);
    });
    sys::UniqueFd listener = sys::ListenUnix(path_).value();
    ASSERT_EQ(::fcntl(listener.get(), F_SETFL, O_NONBLOCK), 0);
    ASSERT_OK(server_->Listen(std::move(listener)));
  }
  std::unique_ptr<LoopClient> NewClient() {
    return LoopClient::Connect(*loop_, path_, [this] { closed_ = true; }).value();
  }
  absl::StatusOr<std::string> Call(LoopClient& client, absl::string_view method,
                                   absl::string_view payload = "") {
    std::optional<absl::StatusOr<std::string>> result;
    client.Call("test", method, payload, {}, absl::Seconds(10),
                [&](absl::StatusOr<std::string> answer) { result = std::move(answer); });
    while (!result.has_value()) EXPECT_OK(loop_->RunOnce(absl::Seconds(10)));
    return *result;
  }
  // What a raw peer gets back for `wire`.
  std::string Exchange(absl::string_view wire, size_t answer_bytes) {
    const sys::UniqueFd socket = sys::ConnectUnix(path_).value();
    EXPECT_EQ(::write(socket.get(), wire.data(), wire.size()), static_cast<ssize_t>(wire.size()));
    std::string answer;
    while (answer.size() < answer_bytes) {
      EXPECT_OK(loop_->RunOnce(absl::Seconds(1)));
      char buffer[256];
      const ssize_t got = ::recv(socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      if (got == 0) break;
      if (got > 0) answer.append(buffer, static_cast<size_t>(got));
    }
    return answer;
  }

  sys::TempDir directory_ = sys::TempDir::Create().value();
  std::string path_;
  std::unique_ptr<sys::EventLoop> loop_;
  std::optional<Server> server_;
  std::vector<Responder> parked_;
  bool closed_ = false;
};

TEST_F(ServerTest, AnswersAndFails) {
  const auto client = NewClient();
  EXPECT_EQ(Call(*client, "Echo", "hello").value(), "hello");
  EXPECT_THAT(Call(*client, "Fail"), Fails(absl::StatusCode::kNotFound, "gone"));
}

TEST_F(ServerTest, CarriesLargeMessages) {
  const auto client = NewClient();
  const std::string large(3 << 20, 'x');
  EXPECT_EQ(Call(*client, "Echo", large).value(), large);
}

TEST_F(ServerTest, AParkedCallDoesNotHoldOthersUp) {
  const auto client = NewClient();
  std::optional<absl::StatusOr<std::string>> parked;
  client->Call("test", "Park", "", {}, absl::InfiniteDuration(),
               [&](absl::StatusOr<std::string> answer) { parked = std::move(answer); });
  EXPECT_EQ(Call(*client, "Echo", "meanwhile").value(), "meanwhile");
  ASSERT_EQ(parked_.size(), 1u);

  parked_[0].Reply(absl::OkStatus(), "late");
  while (!parked.has_value()) ASSERT_OK(loop_->RunOnce(absl::Seconds(10)));

  EXPECT_EQ(parked->value(), "late");
}

TEST_F(ServerTest, AnAnswerToAClosedConnectionIsDropped) {
  auto client = NewClient();
  client->Call("test", "Park", "", {}, absl::InfiniteDuration(), [](auto) {});
  while (parked_.empty()) ASSERT_OK(loop_->RunOnce(absl::Seconds(10)));
  client.reset();
  while (server_->connection_count() > 0) ASSERT_OK(loop_->RunOnce(absl::Seconds(10)));

  parked_[0].Reply(absl::OkStatus(), "nobody");

  EXPECT_EQ(Call(*NewClient(), "Echo", "alive").value(), "alive");
}

TEST_F(ServerTest, StreamIdsMustBeOddAndGrow) {
  const std::string first = EncodeRequestFrame(3, {"t", "Echo", "a"}).value();
  const std::string again = EncodeRequestFrame(3, {"t", "Echo", "b"}).value();
  const std::string answer = Exchange(first + again, 60);
  EXPECT_NE(answer.find("must be odd and above 3"), std::string::npos);
}

TEST_F(ServerTest, StreamsAreUnimplemented) {
  std::string frame = EncodeRequestFrame(1, {"t", "Echo", "a"}).value();
  frame[9] = 2;
  EXPECT_NE(Exchange(frame, 40).find("streams are not served"), std::string::npos);
}

TEST_F(ServerTest, AnotherProtocolIsHandedOver) {
  std::string seen;
  server_->SetForeignHandler([&](sys::UniqueFd socket) {
    char buffer[16];
    const ssize_t got = ::read(socket.get(), buffer, sizeof buffer);
    seen.assign(buffer, static_cast<size_t>(got));
    EXPECT_EQ(::write(socket.get(), "ok", 2), 2);
  });

  EXPECT_EQ(Exchange("GAT1", 2), "ok");
  EXPECT_EQ(seen, "GAT1");
  EXPECT_EQ(server_->connection_count(), 0u);
}

TEST_F(ServerTest, TheClientLearnsThatTheServerIsGone) {
  const auto client = NewClient();
  ASSERT_OK(Call(*client, "Echo"));
  std::optional<absl::StatusOr<std::string>> parked;
  client->Call("test", "Park", "", {}, absl::InfiniteDuration(),
               [&](absl::StatusOr<std::string> answer) { parked = std::move(answer); });
  while (parked_.empty()) ASSERT_OK(loop_->RunOnce(absl::Seconds(10)));

  server_.reset();
  while (!closed_) ASSERT_OK(loop_->RunOnce(absl::Seconds(10)));

  EXPECT_THAT(*parked, Fails(absl::StatusCode::kUnavailable, "closed"));
}

TEST_F(ServerTest, ADeadlineEndsACall) {
  const auto client = NewClient();
  std::optional<absl::StatusOr<std::string>> parked;
  client->Call("test", "Park", "", {}, absl::Milliseconds(20),
               [&](absl::StatusOr<std::string> answer) { parked = std::move(answer); });
  while (!parked.has_value()) ASSERT_OK(loop_->RunOnce(absl::Seconds(10)));
  EXPECT_THAT(*parked, Fails(absl::StatusCode::kDeadlineExceeded, "in time"));
  parked_[0].Reply(absl::OkStatus(), "late");
  EXPECT_EQ(Call(*client, "Echo", "alive").value(), "alive");
}

}  // namespace
}  // namespace gantry::ttrpc
