#include "shim/operation_queue.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gantry::shim {
namespace {

using ::testing::ElementsAre;

class OperationQueueTest : public ::testing::Test {
 protected:
  OperationQueue::Operation Named(const std::string& name) {
    return {[this, name] { log_.push_back(name); },
            [this, name](const absl::Status& why) {
              log_.push_back(name + ": " + std::string(why.message()));
            }};
  }
  // Everything that was posted runs, then the loop ends.
  void RunLoop() {
    loop_->Post([this] { loop_->Post([this] { loop_->Stop(); }); });
    ASSERT_TRUE(loop_->Run().ok());
  }

  std::unique_ptr<sys::EventLoop> loop_ = sys::EventLoop::Create().value();
  std::vector<std::string> log_;
};

TEST_F(OperationQueueTest, TheNextBeginsWhenTheFirstHasFinished) {
  OperationQueue queue(*loop_);
  queue.Add(Named("a"));
  queue.Add(Named("b"));
  EXPECT_THAT(log_, ElementsAre("a"));
  queue.Finish();
  RunLoop();
  EXPECT_THAT(log_, ElementsAre("a", "b"));
}

TEST_F(OperationQueueTest, AClosedQueueRejectsWhoWaits) {
  OperationQueue queue(*loop_);
  queue.Occupy();
  queue.Add(Named("a"));
  queue.Close(absl::NotFoundError("deleted"));
  RunLoop();
  EXPECT_THAT(log_, ElementsAre("a: deleted"));
}

TEST_F(OperationQueueTest, NothingRunsAfterItIsGone) {
  {
    OperationQueue queue(*loop_);
    queue.Occupy();
    queue.Add(Named("a"));
    queue.Finish();
  }
  RunLoop();
  EXPECT_THAT(log_, ElementsAre());
}

}  // namespace
}  // namespace gantry::shim
