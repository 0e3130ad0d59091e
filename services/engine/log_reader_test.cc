#include "services/engine/log_reader.h"

#include <unistd.h>

#include <fstream>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"
#include "services/engine/container.h"
#include "services/engine/directory_watcher.h"

namespace gantry::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class LogReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<sys::TempDir> folder = sys::TempDir::Create();
    ASSERT_OK(folder);
    folder_.emplace(*std::move(folder));
    path_ = absl::StrCat(folder_->path(), "/c-json.log");
  }

  static std::string Line(const std::string& text, const std::string& stream = "stdout",
                          int second = 0) {
    return absl::StrFormat(
        "{\"log\":\"%s\\n\",\"stream\":\"%s\",\"time\":\"2026-11-23T10:02:%02d.5Z\"}\n", text,
        stream, second);
  }
  void Append(const std::string& bytes) {
    std::ofstream(path_, std::ios::app | std::ios::binary) << bytes;
  }
  // As the shim does it: the newest file becomes .1 and so on; at most `keep` in all.
  void Rotate(int keep = 3) {
    for (int i = keep - 1; i >= 1; --i) {
      const std::string from = i == 1 ? path_ : absl::StrCat(path_, ".", i - 1);
      (void)::rename(from.c_str(), absl::StrCat(path_, ".", i).c_str());
    }
  }
  LogReader Open(LogOptions options = LogOptions()) {
    absl::StatusOr<LogReader> reader = LogReader::Open(path_, options);
    EXPECT_OK(reader);
    return *std::move(reader);
  }
  static std::vector<std::string> Rest(LogReader& reader) {
    std::vector<std::string> texts;
    v1::LogEntry entry;
    while (true) {
      absl::StatusOr<bool> got = reader.Next(&entry);
      EXPECT_OK(got);
      if (!got.ok() || !*got) return texts;
      texts.push_back(entry.data().substr(0, entry.data().size() - 1));
    }
  }

  std::optional<sys::TempDir> folder_;
  std::string path_;
};

TEST_F(LogReaderTest, AMissingLogIsEmptyAndMayComeLater) {
  LogReader reader = Open();
  EXPECT_THAT(Rest(reader), IsEmpty());

  Append(Line("late"));

  EXPECT_THAT(Rest(reader), ElementsAre("late"));
}

TEST_F(LogReaderTest, RotatedFilesComeFirstOldestFirst) {
  for (const char* text : {"one", "two", "three"}) {
    if (std::string(text) != "one") Rotate();
    Append(Line(text));
  }

  LogReader reader = Open();

  EXPECT_THAT(Rest(reader), ElementsAre("one", "two", "three"));
}

TEST_F(LogReaderTest, TailCountsLinesOverFiles) {
  Append(Line("a") + Line("b"));
  Rotate();
  Append(Line("c"));
  Rotate();
  Append(Line("d") + Line("e"));
  const std::vector<std::string> all = {"a", "b", "c", "d", "e"};
  for (int64_t tail = 1; tail <= 7; ++tail) {
    LogOptions options;
    options.tail = tail;
    LogReader reader = Open(options);
    const size_t expected = std::min<size_t>(static_cast<size_t>(tail), all.size());
    EXPECT_EQ(Rest(reader), std::vector<std::string>(all.end() - expected, all.end()))
        << "tail " << tail;
  }
}

TEST_F(LogReaderTest, TailOfALogThatIsLargerThanOneRead) {
  const std::string filler(900, 'x');
  for (int i = 0; i < 500; ++i) Append(Line(absl::StrCat(i, filler)));
  LogOptions options;
  options.tail = 200;

  LogReader reader = Open(options);

  const std::vector<std::string> lines = Rest(reader);
  ASSERT_EQ(lines.size(), 200u);
  EXPECT_EQ(lines.front(), absl::StrCat(300, filler));
}

TEST_F(LogReaderTest, TailZeroShowsOnlyWhatComes) {
  Append(Line("old"));
  LogOptions options;
  options.tail = 0;
  LogReader reader = Open(options);
  EXPECT_THAT(Rest(reader), IsEmpty());

  Append(Line("new"));

  EXPECT_THAT(Rest(reader), ElementsAre("new"));
}

TEST_F(LogReaderTest, StreamsAndTimesAreChosen) {
  Append(Line("out", "stdout", 1) + Line("err", "stderr", 2) + Line("later", "stdout", 9));
  LogOptions options;
  options.want_stderr = false;
  LogReader only_out = Open(options);
  EXPECT_THAT(Rest(only_out), ElementsAre("out", "later"));

  options = LogOptions();
  ASSERT_TRUE(absl::ParseTime(absl::RFC3339_full, "2026-11-23T10:02:02Z", &options.since, nullptr));
  ASSERT_TRUE(absl::ParseTime(absl::RFC3339_full, "2026-11-23T10:02:05Z", &options.until, nullptr));
  LogReader between = Open(options);
  EXPECT_THAT(Rest(between), ElementsAre("err"));
  EXPECT_TRUE(between.done());
}

TEST_F(LogReaderTest, FollowingSurvivesRotationsAndLosesNothing) {
  Append(Line("0"));
  LogReader reader = Open();
  EXPECT_THAT(Rest(reader), ElementsAre("0"));

  Append(Line("1"));  // Written to the file that is rotated before we look again.
  Rotate();
  Append(Line("2"));
  Rotate();
  Append(Line("3"));

  EXPECT_THAT(Rest(reader), ElementsAre("1", "2", "3"));
}

TEST_F(LogReaderTest, AFileEmptiedInPlaceIsReadFromItsBeginning) {
  Append(Line("first") + Line("second"));
  LogReader reader = Open();
  EXPECT_THAT(Rest(reader), ElementsAre("first", "second"));

  ASSERT_EQ(::truncate(path_.c_str(), 0), 0);
  Append(Line("x"));

  EXPECT_THAT(Rest(reader), ElementsAre("x"));
}

TEST_F(LogReaderTest, ALineThatIsStillBeingWrittenWaits) {
  const std::string line = Line("whole");
  Append(line.substr(0, 10));
  LogReader reader = Open();
  EXPECT_THAT(Rest(reader), IsEmpty());

  Append(line.substr(10));

  EXPECT_THAT(Rest(reader), ElementsAre("whole"));
}

TEST_F(LogReaderTest, WhatIsNoLogLineIsSkipped) {
  Append("garbage\n" + Line("good") + "{\"log\":1}\n");
  LogReader reader = Open();
  EXPECT_THAT(Rest(reader), ElementsAre("good"));
}

TEST_F(LogReaderTest, TheWatcherCallsOnceForAChange) {
  absl::StatusOr<std::unique_ptr<DirectoryWatcher>> watcher = DirectoryWatcher::Create();
  ASSERT_OK(watcher);
  absl::Notification called;
  ASSERT_OK((*watcher)->Watch(folder_->path(), [&] { called.Notify(); }));

  Append(Line("x"));
  Append(Line("y"));  // A second Notify would crash.

  EXPECT_TRUE(called.WaitForNotificationWithTimeout(absl::Seconds(10)));
}

TEST_F(LogReaderTest, ACancelledWatchIsNotCalled) {
  absl::StatusOr<std::unique_ptr<DirectoryWatcher>> watcher = DirectoryWatcher::Create();
  ASSERT_OK(watcher);
  absl::Notification other;
  bool called = false;
  absl::StatusOr<uint64_t> ticket = (*watcher)->Watch(folder_->path(), [&] { called = true; });
  ASSERT_OK(ticket);
  (*watcher)->Cancel(*ticket);
  ASSERT_OK((*watcher)->Watch(folder_->path(), [&] { other.Notify(); }));

  Append(Line("x"));

  ASSERT_TRUE(other.WaitForNotificationWithTimeout(absl::Seconds(10)));
  EXPECT_FALSE(called);
}

}  // namespace
}  // namespace gantry::engine
