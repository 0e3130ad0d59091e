#include "services/metadata/redo_log.h"

#include <string>
#include <vector>

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
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr size_t kLogBytes = 4096;
constexpr size_t kHeaderBytes = 32;

class RedoLogTest : public ::testing::Test {
 protected:
  void TearDown() override { failpoint::DisarmAll(); }

  RedoLog Open() { return *RedoLog::Open(path_, kLogBytes); }

  static absl::StatusOr<std::vector<std::string>> Replay(const RedoLog& log, uint64_t epoch) {
    std::vector<std::string> payloads;
    absl::Status replayed = log.Replay(epoch, [&](absl::string_view payload) {
      payloads.emplace_back(payload);
      return absl::OkStatus();
    });
    if (!replayed.ok()) return replayed;
    return payloads;
  }

  // Three records of 40, 48 and 56 bytes.
  std::string WriteThree() {
    RedoLog log = Open();
    log.Restart(7);
    for (size_t size : {8, 16, 24})
      EXPECT_OK(log.Append(std::string(size, static_cast<char>('a' + size))));
    return *sys::ReadFile(path_);
  }

  sys::TempDir directory_ = *sys::TempDir::Create();
  std::string path_ = directory_.path() + "/redo";
};

TEST_F(RedoLogTest, RecordsOfTheEpochComeBackInOrder) {
  WriteThree();

  absl::StatusOr<std::vector<std::string>> payloads = Replay(Open(), 7);

  ASSERT_OK(payloads);
  EXPECT_THAT(*payloads,
              ElementsAre(std::string(8, 'i'), std::string(16, 'q'), std::string(24, 'y')));
  EXPECT_THAT(*Replay(Open(), 6), IsEmpty());
}

TEST_F(RedoLogTest, RecordsOfAnEarlierEpochBehindNewOnesAreNotTheirs) {
  WriteThree();
  RedoLog log = Open();
  log.Restart(9);
  ASSERT_OK(log.Append("same size"));

  EXPECT_THAT(*Replay(log, 9), ElementsAre("same size"));
}

TEST_F(RedoLogTest, ALogCutAtAnyByteGivesTheWholeRecordsBeforeTheCut) {
  const std::string whole = WriteThree();
  const size_t ends[] = {kHeaderBytes + 8, 2 * kHeaderBytes + 24, 3 * kHeaderBytes + 48};

  for (size_t cut = 0; cut <= ends[2]; ++cut) {
    ASSERT_OK(
        sys::WriteFileAtomically(path_, whole.substr(0, cut) + std::string(kLogBytes - cut, '\0')));

    absl::StatusOr<std::vector<std::string>> payloads = Replay(Open(), 7);

    ASSERT_OK(payloads) << cut;
    const size_t expected = (cut >= ends[0]) + (cut >= ends[1]) + (cut >= ends[2]);
    EXPECT_EQ(payloads->size(), expected) << cut;
  }
}

TEST_F(RedoLogTest, ADamagedRecordBeforeAWholeOneIsDataLossAndNotTheEnd) {
  const std::string whole = WriteThree();
  for (size_t at = 0; at < 2 * kHeaderBytes + 24; ++at) {
    if (at % (kHeaderBytes + 8) >= 28 && at % (kHeaderBytes + 8) < kHeaderBytes)
      continue;  // Reserved.
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x40);
    ASSERT_OK(sys::WriteFileAtomically(path_, damaged));

    absl::StatusOr<std::vector<std::string>> payloads = Replay(Open(), 7);

    if (payloads.ok()) {
      // The only bytes that do not count are reserved ones.
      EXPECT_EQ(payloads->size(), 3u) << at;
      EXPECT_TRUE(at >= kHeaderBytes + 8 + 28 && at < 2 * kHeaderBytes + 8) << at;
    } else {
      EXPECT_THAT(payloads, Fails(absl::StatusCode::kDataLoss, "restore a backup")) << at;
    }
  }
}

TEST_F(RedoLogTest, ALogThatIsFullSaysSoBeforehand) {
  RedoLog log = Open();
  log.Restart(1);

  EXPECT_TRUE(log.Fits(kLogBytes - kHeaderBytes));
  EXPECT_FALSE(log.Fits(kLogBytes - kHeaderBytes + 1));
  ASSERT_OK(log.Append("x"));
  EXPECT_FALSE(log.Fits(kLogBytes - kHeaderBytes));
  EXPECT_THAT(log.Append(std::string(kLogBytes, 'x')), HasCode(absl::StatusCode::kInternal));
}

}  // namespace
}  // namespace gantry::metadata
