#include "services/metadata/journal.h"

#include <thread>

#include "absl/synchronization/notification.h"
#include "containerd/events/events.pb.h"
#include "services/metadata/objects.h"
#include "services/metadata/testing/house_test.h"

namespace gantry::metadata {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class JournalTest : public HouseTest {
 protected:
  DatabaseOptions Options() const override {
    DatabaseOptions options = HouseTest::Options();
    options.journal_entries = 20;
    return options;
  }

  static containerd::types::Envelope MakeExit(const std::string& container, uint32_t status = 0) {
    containerd::events::TaskExit exit;
    exit.set_container_id(container);
    exit.set_id(container);
    exit.set_exit_status(status);
    containerd::types::Envelope envelope;
    envelope.set_namespace_("moby");
    envelope.set_topic("/tasks/exit");
    *envelope.mutable_timestamp() = ToProto(absl::Now());
    *envelope.mutable_event() = MakeAny(exit);
    return envelope;
  }

  static bool Matches(const std::string& filter, const containerd::types::Envelope& envelope) {
    return MatchesEvent(*filter::Filter::Parse({filter}), envelope);
  }
};

TEST_F(JournalTest, EventsKeepTheirNumbersAcrossARestart) {
  ASSERT_OK(house_->journal.Append(MakeExit("one")));
  ASSERT_OK(house_->journal.Append(MakeExit("two")));

  Reopen();
  ASSERT_OK(house_->journal.Append(MakeExit("three")));

  absl::StatusOr<std::vector<Journal::Entry>> entries = house_->journal.Read(1, 10);
  ASSERT_OK(entries);
  ASSERT_THAT(*entries, SizeIs(2));
  EXPECT_EQ(entries->at(0).sequence, 2u);
  EXPECT_EQ(entries->at(1).sequence, 3u);
}

TEST_F(JournalTest, WhatRetentionDroppedIsNeverSkippedSilently) {
  for (int i = 0; i < 30; ++i) ASSERT_OK(house_->journal.Append(MakeExit("c")));

  EXPECT_THAT(house_->journal.Read(3, 10),
              Fails(absl::StatusCode::kOutOfRange, "oldest kept is 11"));
  EXPECT_EQ(house_->journal.Read(0, 1)->at(0).sequence, 11u);
  EXPECT_EQ(house_->journal.GetRange()->first, 11u);
  EXPECT_EQ(house_->journal.GetRange()->last, 30u);
}

TEST_F(JournalTest, BadEventsAreRefused) {
  containerd::types::Envelope envelope = MakeExit("c");
  envelope.set_topic("no-slash");
  EXPECT_THAT(house_->journal.Append(envelope), HasCode(absl::StatusCode::kInvalidArgument));
  envelope = MakeExit("c");
  envelope.clear_timestamp();
  EXPECT_THAT(house_->journal.Append(envelope), HasCode(absl::StatusCode::kInvalidArgument));
  envelope = MakeExit("c");
  envelope.clear_event();
  EXPECT_THAT(house_->journal.Append(envelope), HasCode(absl::StatusCode::kInvalidArgument));
  envelope = MakeExit("c");
  envelope.set_namespace_("");
  EXPECT_THAT(house_->journal.Append(envelope), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(house_->journal.last_sequence(), 0u);
}

TEST_F(JournalTest, FollowersHearOfDurableEntriesOnly) {
  struct Counting : Journal::Follower {
    void OnNews() override {
      absl::MutexLock lock(&mutex);
      ++news;
    }
    void OnStop() override {}
    absl::Mutex mutex;
    int news = 0;
  } follower;
  house_->journal.AddFollower(&follower);
  ASSERT_OK(failpoint::Arm("metadata.redo_log.before_sync=error(no)@1"));

  EXPECT_FALSE(house_->journal.Append(MakeExit("lost")).ok());

  EXPECT_EQ(house_->journal.last_sequence(), 0u);
  EXPECT_THAT(*house_->journal.Read(0, 10), IsEmpty());
  house_->journal.RemoveFollower(&follower);
}

TEST_F(JournalTest, FiltersSeeNamespaceTopicAndTheTextOfTheEvent) {
  containerd::types::Envelope exit = MakeExit("web", 3);

  EXPECT_TRUE(Matches("namespace==moby,topic~=|^/tasks/|", exit));
  EXPECT_TRUE(Matches("event.container_id==web", exit));
  EXPECT_FALSE(Matches("event.container_id==db", exit));
  EXPECT_FALSE(Matches("event.exit_status==3", exit));  // Numbers never match.
  EXPECT_FALSE(Matches("namespace==plugins.moby", exit));
  EXPECT_TRUE(Matches("", exit));

  containerd::events::NamespaceUpdate update;
  (*update.mutable_labels())["a.b"] = "c";
  *exit.mutable_event() = MakeAny(update);
  EXPECT_TRUE(Matches("event.labels.a.b==c", exit));
  exit.mutable_event()->set_type_url("unknown.Type");
  EXPECT_FALSE(Matches("event.labels.a.b==c", exit));
}

// Who was sent away by the stop may come back on the same connection before the server is down.
TEST_F(JournalTest, AStopIsToldToThoseWhoComeLaterToo) {
  class Listener final : public Journal::Follower {
   public:
    void OnNews() override {}
    void OnStop() override { told.Notify(); }
    absl::Notification told;
  };
  Listener before;
  Listener later;
  house_->journal.AddFollower(&before);

  house_->journal.Stop();
  house_->journal.AddFollower(&later);

  EXPECT_TRUE(before.told.HasBeenNotified());
  EXPECT_TRUE(later.told.HasBeenNotified());
  house_->journal.RemoveFollower(&before);
  house_->journal.RemoveFollower(&later);
}

}  // namespace
}  // namespace gantry::metadata
