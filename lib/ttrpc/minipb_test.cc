#include "lib/ttrpc/minipb.h"

#include <string>

#include "gtest/gtest.h"

namespace gantry::pb {
namespace {

TEST(MinipbTest, WritesWhatItReads) {
  std::string bytes;
  Writer writer(&bytes);
  writer.Varint(1, 0xffffffffffffffffu);
  writer.String(2, "text");
  writer.Double(3, 1.5);
  writer.Message(200, [](Writer& inner) { inner.Varint(1, 7); });

  Reader reader(bytes);

  ASSERT_TRUE(reader.Next());
  EXPECT_EQ(reader.field(), 1u);
  EXPECT_EQ(reader.signed_varint(), -1);
  ASSERT_TRUE(reader.Next());
  EXPECT_EQ(reader.bytes(), "text");
  ASSERT_TRUE(reader.Next());
  EXPECT_EQ(reader.type(), WireType::kFixed64);
  EXPECT_EQ(reader.varint(), 0x3ff8000000000000u);
  ASSERT_TRUE(reader.Next());
  EXPECT_EQ(reader.field(), 200u);
  Reader inner(reader.bytes());
  ASSERT_TRUE(inner.Next());
  EXPECT_EQ(inner.varint(), 7u);
  EXPECT_FALSE(inner.Next());
  EXPECT_FALSE(reader.Next());
  EXPECT_TRUE(reader.ok());
}

TEST(MinipbTest, LeavesOutDefaults) {
  std::string bytes;
  Writer writer(&bytes);
  writer.Varint(1, 0);
  writer.String(2, "");
  writer.Bool(3, false);
  EXPECT_EQ(bytes, "");
  writer.AlwaysString(4, "");
  EXPECT_EQ(bytes, std::string("\x22\x00", 2));
}

TEST(MinipbTest, TruncatedBytesAreNoMessage) {
  std::string bytes;
  Writer writer(&bytes);
  writer.String(1, "abc");
  for (size_t cut = 1; cut < bytes.size(); ++cut) {
    Reader reader(absl::string_view(bytes).substr(0, cut));
    while (reader.Next()) {
    }
    EXPECT_FALSE(reader.ok()) << cut;
  }
}

TEST(MinipbTest, RefusesGroupsFieldZeroAndLongVarints) {
  for (const std::string& bytes : {std::string("\x0b"), std::string("\x00\x01", 2),
                                   std::string("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
                                   std::string("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02")}) {
    Reader reader(bytes);
    EXPECT_FALSE(reader.Next());
    EXPECT_FALSE(reader.ok());
  }
}

TEST(MinipbTest, ALengthBeyondTheEndIsRefused) {
  Reader reader(absl::string_view("\x0a\xff\xff\xff\xff\x0f", 6));
  EXPECT_FALSE(reader.Next());
  EXPECT_FALSE(reader.ok());
}

}  // namespace
}  // namespace gantry::pb
