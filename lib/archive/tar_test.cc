#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/archive/tar_reader.h"
#include "lib/archive/testing/tar_builder.h"
#include "lib/testing/status_matchers.h"

namespace gantry::archive {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

TarReader::Source InPieces(const std::string& bytes, size_t step) {
  return [&bytes, step, offset = size_t{0}]() mutable -> absl::StatusOr<absl::string_view> {
    absl::string_view piece = absl::string_view(bytes).substr(offset, step);
    offset += piece.size();
    return piece;
  };
}

std::vector<TarEntry> ReadEntries(const std::string& tar) {
  TarReader reader(InPieces(tar, 700));
  std::vector<TarEntry> entries;
  TarEntry entry;
  for (;;) {
    absl::StatusOr<bool> more = reader.Next(&entry);
    EXPECT_OK(more);
    if (!more.ok() || !*more) return entries;
    entries.push_back(entry);
  }
}

TEST(TarTest, KeepsNamesAsBytes) {
  const std::string long_name(200, 'x');
  TarBuilder builder;
  builder.File("gr\xc3\xbc\xc3\x9f.txt", "1");
  builder.File("latin1-\xfc", "2");
  builder.File(long_name + "/" + long_name, "3");
  builder.Symlink("link", "\xc3\xa4/" + long_name);

  std::vector<TarEntry> entries = ReadEntries(builder.Take());

  ASSERT_EQ(entries.size(), 4u);
  EXPECT_EQ(entries[0].path, "gr\xc3\xbc\xc3\x9f.txt");
  EXPECT_EQ(entries[1].path, "latin1-\xfc");
  EXPECT_EQ(entries[2].path, long_name + "/" + long_name);
  EXPECT_EQ(entries[3].link_target, "\xc3\xa4/" + long_name);
}

TEST(TarTest, KeepsOwnersTimesDevicesAndAttributes) {
  TarEntry entry = TarBuilder::Entry(EntryType::kCharacterDevice, "dev/x", "", 04751);
  entry.uid = 3000000;
  entry.gid = 4294967294;
  entry.modified = absl::FromUnixSeconds(1700000000) + absl::Nanoseconds(123456789);
  entry.device_major = 10;
  entry.device_minor = 229;
  TarEntry file = TarBuilder::Entry(EntryType::kRegular, "cap", "", 0755);
  file.xattrs = {{"security.capability", std::string("\0\1\n=", 4)}, {"user.note", "hi"}};
  TarBuilder builder;
  builder.Add(entry).File(file, "data");

  std::vector<TarEntry> entries = ReadEntries(builder.Take());

  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].uid, 3000000);
  EXPECT_EQ(entries[0].gid, 4294967294);
  EXPECT_EQ(entries[0].permissions, 04751u);
  EXPECT_EQ(entries[0].modified, entry.modified);
  EXPECT_EQ(entries[0].device_major, 10u);
  EXPECT_EQ(entries[0].device_minor, 229u);
  EXPECT_THAT(entries[1].xattrs,
              ::testing::UnorderedElementsAre(
                  Pair("security.capability", std::string("\0\1\n=", 4)), Pair("user.note", "hi")));
}

TEST(TarTest, RefusesWhatIsNotATarArchive) {
  const std::string zip = "PK\x03\x04" + std::string(2000, 'z');
  TarReader reader(InPieces(zip, 512));
  TarEntry entry;

  EXPECT_THAT(reader.Next(&entry), testing::HasCode(absl::StatusCode::kInvalidArgument));
}

TEST(TarTest, AnErrorOfTheSourceComesThrough) {
  TarReader reader([]() -> absl::StatusOr<absl::string_view> {
    return absl::DataLossError("the stream is damaged");
  });
  TarEntry entry;

  EXPECT_THAT(reader.Next(&entry), testing::Fails(absl::StatusCode::kDataLoss, "damaged"));
}

}  // namespace
}  // namespace gantry::archive
