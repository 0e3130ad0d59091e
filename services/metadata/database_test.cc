#include "services/metadata/database.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/sys/file.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::metadata {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::HasSubstr;
using Purpose = Database::Purpose;

constexpr size_t kPageBytes = 4096;

class DatabaseTest : public ::testing::Test {
 protected:
  void TearDown() override { failpoint::DisarmAll(); }

  DatabaseOptions Options() {
    DatabaseOptions options;
    options.directory = directory_.path() + "/state";
    options.redo_log_bytes = 256 << 10;
    options.reserve_bytes = 1 << 20;
    options.commits_per_checkpoint = 20;
    return options;
  }

  std::unique_ptr<Database> Open() { return Open(Options()); }
  std::unique_ptr<Database> Open(DatabaseOptions options) {
    absl::StatusOr<std::unique_ptr<Database>> opened = Database::Open(std::move(options));
    EXPECT_OK(opened);
    return opened.ok() ? *std::move(opened) : nullptr;
  }

  static absl::Status Put(Database& database, const std::string& key, const std::string& value) {
    return database.Write(Purpose::kGrow,
                          [&](Writer& writer) { return writer.Put(Table::kRecords, key, value); });
  }

  static std::map<std::string, std::string> Contents(const Database& database) {
    std::map<std::string, std::string> contents;
    absl::StatusOr<Reader> reader = database.Read();
    EXPECT_OK(reader);
    EXPECT_OK(
        reader->Scan(Table::kRecords, "",
                     [&](absl::string_view key, absl::string_view value) -> absl::StatusOr<bool> {
                       contents[std::string(key)] = std::string(value);
                       return true;
                     }));
    return contents;
  }

  // Runs `work` in a process of its own that ends without any clean-up. Answers how it ended.
  template <typename Work>
  static int InDyingProcess(Work work) {
    const pid_t child = ::fork();
    if (child == 0) {
      work();
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
  }

  sys::TempDir directory_ = *sys::TempDir::Create();
};

TEST_F(DatabaseTest, WhatWasWrittenIsThereAfterReopening) {
  std::unique_ptr<Database> database = Open();
  ASSERT_OK(Put(*database, "a", "1"));
  ASSERT_OK(Put(*database, "b", "2"));
  ASSERT_OK(Put(*database, "a", "3"));

  database.reset();
  database = Open();

  EXPECT_EQ(Contents(*database), (std::map<std::string, std::string>{{"a", "3"}, {"b", "2"}}));
}

TEST_F(DatabaseTest, AMutationThatFailsLeavesNothingWhileTheOthersOfItsGroupGoOn) {
  std::unique_ptr<Database> database = Open();
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;

  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 20; ++round) {
        absl::Status written = database->Write(Purpose::kGrow, [&](Writer& writer) -> absl::Status {
          absl::Status put = writer.Put(Table::kRecords, absl::StrCat("k", i, ".", round), "v");
          if (!put.ok()) return put;
          return i % 2 == 0 ? absl::OkStatus() : absl::AbortedError("on purpose");
        });
        if (!written.ok()) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(failures, 8 * 20);
  EXPECT_EQ(Contents(*database).size(), 8u * 20u);
  EXPECT_LT(database->statistics().commits, database->statistics().mutations);
}

TEST_F(DatabaseTest, OnlyOneProcessMayHaveItOpen) {
  std::unique_ptr<Database> database = Open();

  EXPECT_THAT(Database::Open(Options()),
              Fails(absl::StatusCode::kFailedPrecondition, "another process"));
}

TEST_F(DatabaseTest, KeysLongerThanLmdbAllowsKeepTheirOrderAndTheirPrefix) {
  std::unique_ptr<Database> database = Open();
  const std::string stem(600, 'x');

  ASSERT_OK(Put(*database, stem + "1", "one"));
  ASSERT_OK(Put(*database, stem + "2", "two"));
  ASSERT_OK(Put(*database, stem + "1", "one again"));

  EXPECT_EQ(Contents(*database),
            (std::map<std::string, std::string>{{stem + "1", "one again"}, {stem + "2", "two"}}));
  absl::StatusOr<Reader> reader = database->Read();
  ASSERT_OK(reader);
  EXPECT_EQ(reader->Find(Table::kRecords, stem + "3")->has_value(), false);
}

TEST_F(DatabaseTest, ADamagedValueIsReportedAndNotReturned) {
  std::unique_ptr<Database> database = Open();
  ASSERT_OK(Put(*database, "web", "precious value"));
  database.reset();
  Open().reset();  // Into the checkpoint: the redo log would heal it.
  std::string bytes = *sys::ReadFile(Options().directory + "/data.mdb", 1 << 30);
  for (size_t at = 0; (at = bytes.find("precious", at)) != std::string::npos; ++at) bytes[at] = 'P';
  ASSERT_OK(sys::WriteFileDurably(Options().directory + "/data.mdb", bytes));

  database = Open();

  absl::StatusOr<Reader> reader = database->Read();
  ASSERT_OK(reader);
  EXPECT_THAT(reader->Find(Table::kRecords, "web"), Fails(absl::StatusCode::kDataLoss, "'web'"));
}

TEST_F(DatabaseTest, AFileCutShortIsRefused) {
  std::unique_ptr<Database> database = Open();
  ASSERT_OK(Put(*database, "web", std::string(100'000, 'v')));
  database.reset();
  Open().reset();  // Into the checkpoint.

  ASSERT_EQ(::truncate((Options().directory + "/data.mdb").c_str(), 3 * kPageBytes), 0);

  EXPECT_THAT(Database::Open(Options()), Fails(absl::StatusCode::kDataLoss, "data.mdb"));
}

TEST_F(DatabaseTest, AFailedSyncStopsAllWritingAndIsReportedOnce) {
  std::atomic<int> reports{0};
  DatabaseOptions options = Options();
  options.on_fatal = [&](const absl::Status&) { ++reports; };
  std::unique_ptr<Database> database = Open(options);
  ASSERT_OK(failpoint::Arm("metadata.redo_log.before_sync=error(i/o error)@1"));

  EXPECT_THAT(Put(*database, "a", "1"), HasCode(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Put(*database, "b", "1"), Fails(absl::StatusCode::kUnavailable, "i/o error"));

  EXPECT_EQ(reports, 1);
}

TEST_F(DatabaseTest, AWriteLargerThanTheLogIsDurableByACheckpoint) {
  const std::string large(600 << 10, 'L');
  ASSERT_EQ(InDyingProcess([&] {
              std::unique_ptr<Database> database = Open();
              if (!Put(*database, "large", large).ok()) ::_exit(1);
            }),
            0);

  std::unique_ptr<Database> database = Open();

  EXPECT_EQ(Contents(*database)["large"], large);
}

TEST_F(DatabaseTest, TheJournalKeepsAsManyEntriesAsAskedFor) {
  DatabaseOptions options = Options();
  options.journal_entries = 10;
  std::unique_ptr<Database> database = Open(options);

  for (int i = 0; i < 25; ++i) {
    ASSERT_OK(database->Write(Purpose::kGrow, [](Writer& writer) { return writer.Journal("e"); }));
  }

  absl::StatusOr<Reader> reader = database->Read();
  ASSERT_OK(reader);
  EXPECT_EQ(*reader->Count(Table::kJournal), 10u);
  EXPECT_EQ(database->durable_sequence(), 25u);
  EXPECT_EQ(DecodeNumber(**reader->FirstKey(Table::kJournal)), 16u);
}

// Dies at every failpoint of a write, for each of the first hits, and looks at what is there then.
class DatabaseCrashTest : public DatabaseTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(DatabaseCrashTest, NothingAcknowledgedIsLostAndNothingIsHalfDone) {
  for (int hit = 1; hit <= 5; ++hit) {
    sys::TempDir directory = *sys::TempDir::Create();
    DatabaseOptions options = Options();
    options.directory = directory.path() + "/state";
    options.commits_per_checkpoint = 3;
    const std::string acknowledged_path = directory.path() + "/acknowledged";

    const int status = InDyingProcess([&] {
      if (!failpoint::Arm(absl::StrCat(GetParam(), "=kill@", hit)).ok()) ::_exit(1);
      absl::StatusOr<std::unique_ptr<Database>> database = Database::Open(options);
      if (!database.ok()) ::_exit(2);
      int acknowledged = ::open(acknowledged_path.c_str(), O_WRONLY | O_CREAT, 0600);
      for (int i = 0; i < 1000; ++i) {
        absl::Status put = (*database)->Write(Purpose::kGrow, [&](Writer& writer) -> absl::Status {
          absl::Status first = writer.Put(Table::kRecords, absl::StrCat("a", i), absl::StrCat(i));
          return first.ok() ? writer.Put(Table::kRecords, absl::StrCat("b", i), absl::StrCat(i))
                            : first;
        });
        if (!put.ok() || ::pwrite(acknowledged, &i, sizeof(i), 0) != sizeof(i)) ::_exit(3);
      }
    });

    ASSERT_TRUE(WIFSIGNALED(status)) << GetParam() << " was not hit " << hit << " times";
    int acknowledged = -1;
    if (absl::StatusOr<std::string> bytes = sys::ReadFile(acknowledged_path);
        bytes.ok() && !bytes->empty()) {
      std::memcpy(&acknowledged, bytes->data(), sizeof(acknowledged));
    }
    absl::StatusOr<std::unique_ptr<Database>> database = Database::Open(options);
    ASSERT_OK(database);
    std::map<std::string, std::string> contents = Contents(**database);
    const int present = static_cast<int>(contents.size()) / 2;
    EXPECT_GE(present, acknowledged + 1);
    EXPECT_LE(present, acknowledged + 2);  // At most the one under way.
    for (int i = 0; i < present; ++i) {
      EXPECT_EQ(contents[absl::StrCat("a", i)], absl::StrCat(i));
      EXPECT_EQ(contents[absl::StrCat("b", i)], absl::StrCat(i));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Failpoints, DatabaseCrashTest,
    ::testing::Values("metadata.database.before_commit", "metadata.redo_log.before_append",
                      "metadata.redo_log.before_sync", "metadata.database.before_checkpoint_sync",
                      "metadata.checkpoint.before_write", "metadata.checkpoint.before_sync"));

// Lost power: the logs and checkpoints were synced, but of data.mdb any pages written since the
// last checkpoint may or may not have reached the disk, meta pages included.
TEST_F(DatabaseTest, AnyMixOfOldAndNewPagesRecoversToWhatWasAcknowledged) {
  std::mt19937 random(20261123);
  for (int round = 0; round < 40; ++round) {
    sys::TempDir directory = *sys::TempDir::Create();
    DatabaseOptions options = Options();
    options.directory = directory.path() + "/state";
    options.commits_per_checkpoint = 1 + static_cast<int>(random() % 30);
    const std::string data = options.directory + "/data.mdb";
    const int before = static_cast<int>(random() % 60), after = 1 + static_cast<int>(random() % 20);
    std::map<std::string, std::string> expected;
    auto put = [&](Database& database, int i) {
      const std::string key = absl::StrCat("k", random() % 30);
      const std::string value(random() % 3000, static_cast<char>('a' + i % 26));
      ASSERT_OK(Put(database, key, value));
      expected[key] = value;
    };
    {
      std::unique_ptr<Database> database = Open(options);
      for (int i = 0; i < before; ++i) put(*database, i);
    }
    // Opening finishes a checkpoint; after it none is finished any more.
    options.commits_per_checkpoint = 1'000'000;
    std::string old_data, new_data;
    {
      std::unique_ptr<Database> database = Open(options);
      old_data = *sys::ReadFile(data, 1 << 30);
      for (int i = 0; i < after; ++i) put(*database, i);
      new_data = *sys::ReadFile(data, 1 << 30);
    }

    old_data.resize(std::max(old_data.size(), new_data.size()), '\0');
    std::string mixed = old_data;
    for (size_t page = 0; page < new_data.size(); page += kPageBytes) {
      if (random() % 2 == 0) mixed.replace(page, kPageBytes, new_data, page, kPageBytes);
    }
    ASSERT_OK(sys::WriteFileDurably(data, mixed));

    std::unique_ptr<Database> database = Open(options);
    ASSERT_NE(database, nullptr);
    EXPECT_EQ(Contents(*database), expected) << "round " << round;
  }
}

class FullDiskTest : public DatabaseTest, public ::testing::WithParamInterface<const char*> {};

// The second time every checkpoint is late, as on a busy disk: then the reserve alone is too small
// for the deletions between two of them.
TEST_P(FullDiskTest, DeletionsWorkAndGrowthIsRefusedClearly) {
  REQUIRE_ROOT();
  const std::string mount = directory_.path() + "/small";
  ASSERT_OK(sys::MakeDirectories(mount));
  if (::mount("tmpfs", mount.c_str(), "tmpfs", 0, "size=4m") != 0)
    GTEST_SKIP() << "cannot mount a tmpfs";
  {
    DatabaseOptions options = Options();
    options.directory = mount + "/state";
    std::unique_ptr<Database> database = Open(options);
    ASSERT_NE(database, nullptr);

    absl::Status full;
    int count = 0;
    for (; full.ok() && count < 10'000; ++count)
      full = Put(*database, absl::StrCat(count), std::string(2000, 'f'));
    EXPECT_THAT(full, HasCode(absl::StatusCode::kResourceExhausted));
    EXPECT_THAT(std::string(full.message()), HasSubstr("free"));
    database = nullptr;
    database = Open(options);
    ASSERT_NE(database, nullptr) << "a full disk must not keep it from opening";
    EXPECT_EQ(Contents(*database).size(), static_cast<size_t>(count - 1));

    if (*GetParam() != 0) {
      ASSERT_OK(failpoint::Arm(GetParam()));
    }
    for (int i = 0; i < count - 1; ++i) {
      ASSERT_OK(database->Write(Purpose::kFree, [&](Writer& writer) {
        return writer.Delete(Table::kRecords, absl::StrCat(i)).status();
      })) << i;
    }
    EXPECT_TRUE(Contents(*database).empty());
    EXPECT_OK(Put(*database, "again", "x"));

    failpoint::DisarmAll();
    database = nullptr;
    database = Open(options);
    ASSERT_NE(database, nullptr);
    EXPECT_EQ(Contents(*database).size(), 1u);
  }
  EXPECT_EQ(::umount2(mount.c_str(), MNT_DETACH), 0);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, FullDiskTest,
                         ::testing::Values("",
                                           "metadata.database.before_checkpoint_sync=delay(50)"));

}  // namespace
}  // namespace gantry::metadata
