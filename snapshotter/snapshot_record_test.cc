#include "snapshotter/snapshot_record.h"

#include <string>

#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::snapshotter {
namespace {

SnapshotRecord Example() {
  SnapshotRecord record;
  record.info = {.name = "default/7/web",
                 .parent = "default/3/sha256:aa",
                 .kind = Kind::kCommitted,
                 .labels = {{"a\"b", "line\nline"}},
                 .created_at = absl::FromUnixNanos(1000000001),
                 .updated_at = absl::FromUnixNanos(2000000002)};
  record.parent_id = "abcdefabcdef";
  record.usage = {.bytes = 4096, .inodes = 1};
  return record;
}

TEST(SnapshotRecordTest, SurvivesTheRoundTrip) {
  const SnapshotRecord before = Example();

  absl::StatusOr<SnapshotRecord> after = DecodeRecord(EncodeRecord(before));

  ASSERT_OK(after);
  EXPECT_EQ(after->info.name, before.info.name);
  EXPECT_EQ(after->info.parent, before.info.parent);
  EXPECT_EQ(after->info.kind, before.info.kind);
  EXPECT_EQ(after->info.labels, before.info.labels);
  EXPECT_EQ(after->info.created_at, before.info.created_at);
  EXPECT_EQ(after->info.updated_at, before.info.updated_at);
  EXPECT_EQ(after->parent_id, before.parent_id);
  EXPECT_EQ(after->usage.bytes, before.usage.bytes);
  EXPECT_EQ(after->usage.inodes, before.usage.inodes);
}

TEST(SnapshotRecordTest, EveryTornLengthIsDataLoss) {
  const std::string bytes = EncodeRecord(Example());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THAT(DecodeRecord(bytes.substr(0, length)),
                testing::HasCode(absl::StatusCode::kDataLoss))
        << length;
  }
}

TEST(SnapshotRecordTest, EveryFlippedBitInTheBodyIsDataLoss) {
  const std::string bytes = EncodeRecord(Example());
  for (size_t at = bytes.find('\n') + 1; at < bytes.size(); ++at) {
    std::string rotten = bytes;
    rotten[at] = static_cast<char>(rotten[at] ^ 0x10);
    EXPECT_THAT(DecodeRecord(rotten), testing::HasCode(absl::StatusCode::kDataLoss)) << at;
  }
}

TEST(SnapshotRecordTest, AnotherVersionIsNotDamage) {
  EXPECT_THAT(DecodeRecord("gantry-snapshot 2 00000000\n{}\n"),
              testing::Fails(absl::StatusCode::kInvalidArgument, "another version"));
}

}  // namespace
}  // namespace gantry::snapshotter
