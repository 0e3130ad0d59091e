#include "shim/publisher.h"

#include <fcntl.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/socket.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "lib/ttrpc/server.h"
#include "shim/wire.h"

namespace gantry::shim {
namespace {

using ::testing::ElementsAre;

// Publisher and daemon on one loop.
class PublisherTest : public ::testing::Test {
 protected:
  void SetUp() override { loop_ = sys::EventLoop::Create().value(); }

  void StartDaemon() {
    daemon_.emplace(*loop_,
                    [this](const ttrpc::Request& request, const ttrpc::Responder& responder) {
                      EXPECT_EQ(request.service, "containerd.services.events.ttrpc.v1.Events");
                      EXPECT_EQ(request.metadata.at(0).second, "moby");
                      if (!refusals_.empty()) {
                        responder.Reply(refusals_.back());
                        refusals_.pop_back();
                        return;
                      }
                      for (pb::Reader forward(request.payload); forward.Next();) {
                        for (pb::Reader envelope(forward.bytes()); envelope.Next();) {
                          if (envelope.field() == 3) topics_.push_back(envelope.text());
                          if (envelope.field() == 4)
                            payloads_.push_back(ParseAny(envelope.bytes()).value().value);
                        }
                      }
                      responder.Reply(absl::OkStatus());
                    });
    sys::UniqueFd listener = sys::ListenUnix(path_).value();
    ASSERT_EQ(::fcntl(listener.get(), F_SETFL, O_NONBLOCK), 0);
    ASSERT_OK(daemon_->Listen(std::move(listener)));
  }
  void StopDaemon() {
    daemon_.reset();
    ASSERT_OK(sys::Unlink(path_));
  }
  void RunUntilEmpty(Publisher& publisher) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!publisher.empty() && absl::Now() < deadline) {
      if (impatient_) publisher.Kick();
      ASSERT_OK(loop_->RunOnce(absl::Seconds(1)));
    }
    ASSERT_TRUE(publisher.empty());
  }

  sys::TempDir directory_ = sys::TempDir::Create().value();
  std::string path_ = absl::StrCat(directory_.path(), "/t");
  std::unique_ptr<sys::EventLoop> loop_;
  std::optional<ttrpc::Server> daemon_;
  std::vector<std::string> topics_, payloads_;
  std::vector<absl::Status> refusals_;
  bool impatient_ = false;  // Does not wait for the pauses between attempts.
};

TEST_F(PublisherTest, KeepsTheOrder) {
  StartDaemon();
  Publisher publisher(*loop_, path_, "moby");
  for (int i = 0; i < 100; ++i) publisher.Publish("/tasks/exit", "T", absl::StrCat(i));
  RunUntilEmpty(publisher);
  ASSERT_EQ(payloads_.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(payloads_[i], absl::StrCat(i));
}

TEST_F(PublisherTest, WaitsForADaemonAndGoesOnAfterItsDeath) {
  Publisher publisher(*loop_, path_, "moby");
  publisher.Publish("/tasks/create", "T", "1");
  ASSERT_OK(loop_->RunOnce(absl::Milliseconds(10)));
  StartDaemon();
  RunUntilEmpty(publisher);
  StopDaemon();
  publisher.Publish("/tasks/exit", "T", "2");
  for (int i = 0; i < 5; ++i) ASSERT_OK(loop_->RunOnce(absl::Milliseconds(10)));
  StartDaemon();
  RunUntilEmpty(publisher);
  EXPECT_THAT(payloads_, ElementsAre("1", "2"));
}

TEST_F(PublisherTest, ANewsOfTheDaemonEndsTheWait) {
  Publisher publisher(*loop_, path_, "moby");
  publisher.Publish("/tasks/exit", "T", "1");
  // Long enough away that the next attempt is seconds off.
  const absl::Time until = absl::Now() + absl::Milliseconds(1600);
  while (absl::Now() < until) ASSERT_OK(loop_->RunOnce(absl::Milliseconds(50)));
  StartDaemon();
  const absl::Time began = absl::Now();
  publisher.Kick();
  RunUntilEmpty(publisher);
  EXPECT_LT(absl::Now() - began, absl::Milliseconds(500));
}

TEST_F(PublisherTest, ExitsAreNeverGivenUpOthersAfterFiveRefusals) {
  impatient_ = true;
  StartDaemon();
  Publisher publisher(*loop_, path_, "moby");
  for (int i = 0; i < 5; ++i) refusals_.push_back(absl::InternalError("no"));
  publisher.Publish("/tasks/paused", "T", "dropped");
  publisher.Publish("/tasks/exit", "T", "kept");
  RunUntilEmpty(publisher);
  EXPECT_THAT(topics_, ElementsAre("/tasks/exit"));
  EXPECT_EQ(publisher.dropped(), 1u);

  for (int i = 0; i < 7; ++i) refusals_.push_back(absl::InternalError("no"));
  publisher.Publish("/tasks/exit", "T", "again");
  RunUntilEmpty(publisher);
  EXPECT_THAT(payloads_, ElementsAre("kept", "again"));
}

TEST_F(PublisherTest, MemoryIsBoundedForWhatCanBeSpared) {
  Publisher publisher(*loop_, path_, "moby");
  for (int i = 0; i < 3000; ++i) publisher.Publish("/tasks/paused", "T", "x");
  EXPECT_LE(publisher.queued(), Publisher::kMaxQueued + 1);
  for (int i = 0; i < 3000; ++i) publisher.Publish("/tasks/exit", "T", "x");
  EXPECT_GE(publisher.queued(), 3000u);
}

TEST_F(PublisherTest, WithoutAnAddressEventsGoNowhere) {
  Publisher publisher(*loop_, "", "moby");
  publisher.Publish("/tasks/exit", "T", "x");
  EXPECT_TRUE(publisher.empty());
}

}  // namespace
}  // namespace gantry::shim
