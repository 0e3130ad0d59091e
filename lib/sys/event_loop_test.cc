#include "lib/sys/event_loop.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::sys {
namespace {

using ::gantry::testing::HasCode;
using ::testing::ElementsAre;

class EventLoopTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = EventLoop::Create().value();
    for (auto* pipe : {&first_, &second_}) {
      int ends[2];
      ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
      pipe->read.Reset(ends[0]);
      pipe->write.Reset(ends[1]);
    }
  }
  struct Pipe {
    UniqueFd read, write;
  };
  std::unique_ptr<EventLoop> loop_;
  Pipe first_, second_;
};

TEST_F(EventLoopTest, TellsWhoIsReady) {
  std::string seen;
  ASSERT_OK(loop_->Add(first_.read.get(), EPOLLIN, [&](uint32_t) { seen += "1"; }));
  ASSERT_OK(loop_->Add(second_.read.get(), EPOLLIN, [&](uint32_t) { seen += "2"; }));
  ASSERT_EQ(::write(second_.write.get(), "x", 1), 1);
  ASSERT_OK(loop_->RunOnce(absl::Seconds(5)));
  EXPECT_EQ(seen, "2");
}

TEST_F(EventLoopTest, WhatWasRemovedIsNotCalledThoughItsEventWasFetched) {
  int calls = 0;
  EventLoop::Watch first = 0;
  EventLoop::Watch second = 0;
  const auto remove_both = [&](uint32_t) {
    ++calls;
    loop_->Remove(first);
    loop_->Remove(second);
  };
  first = loop_->Add(first_.read.get(), EPOLLIN, remove_both).value();
  second = loop_->Add(second_.read.get(), EPOLLIN, remove_both).value();
  ASSERT_EQ(::write(first_.write.get(), "x", 1), 1);
  ASSERT_EQ(::write(second_.write.get(), "x", 1), 1);
  ASSERT_OK(loop_->RunOnce(absl::Seconds(5)));
  ASSERT_OK(loop_->RunOnce(absl::ZeroDuration()));
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, ANewWatchInAnOldSlotDoesNotGetTheOldOnesEvents) {
  const EventLoop::Watch first = loop_->Add(first_.read.get(), EPOLLIN, [](uint32_t) {}).value();
  loop_->Remove(first);
  int calls = 0;
  ASSERT_OK(loop_->Add(second_.read.get(), EPOLLIN, [&](uint32_t) { ++calls; }));
  loop_->Remove(first);  // A stale name removes nobody else.
  EXPECT_THAT(loop_->Modify(first, EPOLLIN), HasCode(absl::StatusCode::kNotFound));
  ASSERT_EQ(::write(second_.write.get(), "x", 1), 1);
  ASSERT_OK(loop_->RunOnce(absl::Seconds(5)));
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, TimersRunInTheirOrderAndMayBeCancelled) {
  std::vector<int> order;
  loop_->After(absl::Milliseconds(20), [&] { order.push_back(2); });
  loop_->After(absl::Milliseconds(5), [&] { order.push_back(1); });
  const EventLoop::Timer cancelled =
      loop_->After(absl::Milliseconds(1), [&] { order.push_back(9); });
  loop_->After(absl::Milliseconds(40), [&] { loop_->Stop(); });
  loop_->Cancel(cancelled);
  ASSERT_OK(loop_->Run());
  EXPECT_THAT(order, ElementsAre(1, 2));
}

TEST_F(EventLoopTest, PostedCallsRunBeforeSleepingAndThoseTheyPostInTheNextRound) {
  std::vector<int> order;
  loop_->Post([&] {
    order.push_back(1);
    loop_->Post([&] { order.push_back(2); });
  });
  ASSERT_OK(loop_->RunOnce(absl::InfiniteDuration()));
  EXPECT_THAT(order, ElementsAre(1));
  ASSERT_OK(loop_->RunOnce(absl::InfiniteDuration()));
  EXPECT_THAT(order, ElementsAre(1, 2));
}

TEST_F(EventLoopTest, ARegularFileCannotBeWaitedFor) {
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_THAT(loop_->Add(file.get(), EPOLLIN, [](uint32_t) {}),
              HasCode(absl::StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace gantry::sys
