#include "lib/ttrpc/client.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "lib/sys/socket.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "lib/ttrpc/server.h"

namespace gantry::ttrpc {
namespace {

using ::gantry::testing::Fails;

// A server on its own thread until the object dies.
class ThreadedServer {
 public:
  explicit ThreadedServer(const std::string& path) : thread_([this, path] { Serve(path); }) {
    ready_.WaitForNotification();
  }
  ~ThreadedServer() {
    stop_ = true;
    thread_.join();
  }

 private:
  void Serve(const std::string& path) {
    auto loop = sys::EventLoop::Create().value();
    Server server(*loop, [](const Request& request, Responder responder) {
      if (request.method == "Echo") responder.Reply(absl::OkStatus(), request.payload);
      if (request.method == "Namespace") {
        responder.Reply(absl::OkStatus(), request.metadata.at(0).second);
      }
    });
    sys::UniqueFd listener = sys::ListenUnix(path).value();
    ASSERT_EQ(::fcntl(listener.get(), F_SETFL, O_NONBLOCK), 0);
    ASSERT_OK(server.Listen(std::move(listener)));
    ready_.Notify();
    while (!stop_) ASSERT_OK(loop->RunOnce(absl::Milliseconds(5)));
  }
  absl::Notification ready_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class ClientTest : public ::testing::Test {
 protected:
  sys::TempDir directory_ = sys::TempDir::Create().value();
  std::string path_ = absl::StrCat(directory_.path(), "/s");
};

TEST_F(ClientTest, CallsFromManyThreadsGetTheirOwnAnswers) {
  ThreadedServer server(path_);
  const auto client = Client::Connect(absl::StrCat("unix://", path_)).value();
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const std::string text = absl::StrCat(t, "/", i, std::string(i * 37 % 9000, 'x'));
        if (client->Call("s", "Echo", text, {}, absl::Seconds(20)).value() == text) ++right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 8 * 200);
}

TEST_F(ClientTest, MetadataTravels) {
  ThreadedServer server(path_);
  const auto client = Client::Connect(path_).value();
  EXPECT_EQ(
      client
          ->Call("s", "Namespace", "", {{"containerd-namespace-ttrpc", "moby"}}, absl::Seconds(20))
          .value(),
      "moby");
}

TEST_F(ClientTest, DeadlinesEndBlockingAndParkedCalls) {
  ThreadedServer server(path_);
  const auto client = Client::Connect(path_).value();

  EXPECT_THAT(client->Call("s", "Silent", "", {}, absl::Milliseconds(20)),
              Fails(absl::StatusCode::kDeadlineExceeded, "s/Silent"));
  absl::Notification done;
  absl::Status status;
  client->CallAsync("s", "Silent", "", {}, absl::Milliseconds(20), [&](auto answer) {
    status = answer.status();
    done.Notify();
  });
  done.WaitForNotification();

  EXPECT_THAT(status, Fails(absl::StatusCode::kDeadlineExceeded, ""));
}

TEST_F(ClientTest, TheEndOfTheServerEndsCallsAndIsTold) {
  auto server = std::make_unique<ThreadedServer>(path_);
  absl::Notification closed;
  const auto client = Client::Connect(path_, [&] { closed.Notify(); }).value();
  ASSERT_OK(client->Call("s", "Echo", "", {}, absl::Seconds(20)));
  absl::Notification answered;
  absl::Status status;
  client->CallAsync("s", "Silent", "", {}, absl::InfiniteDuration(), [&](auto answer) {
    status = answer.status();
    answered.Notify();
  });

  server.reset();
  closed.WaitForNotification();
  answered.WaitForNotification();

  EXPECT_THAT(status, Fails(absl::StatusCode::kUnavailable, "closed"));
  EXPECT_FALSE(client->connected());
  EXPECT_THAT(client->Call("s", "Echo", "", {}, absl::Seconds(1)),
              Fails(absl::StatusCode::kUnavailable, "closed"));
}

TEST_F(ClientTest, ADestroyedClientCallsBackOnceAndNeverAgain) {
  ThreadedServer server(path_);
  std::atomic<int> answers{0};
  std::atomic<int> closes{0};
  for (int i = 0; i < 50; ++i) {
    const auto client = Client::Connect(path_, [&] { ++closes; }).value();
    client->CallAsync("s", "Silent", "", {}, absl::Seconds(30), [&](auto) { ++answers; });
  }
  EXPECT_EQ(answers, 50);
  EXPECT_EQ(closes, 0);
}

TEST_F(ClientTest, NobodyListening) {
  EXPECT_THAT(Client::Connect(path_), Fails(absl::StatusCode::kNotFound, path_));
}

}  // namespace
}  // namespace gantry::ttrpc
