#include "lib/dbus/variant_text.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::dbus {
namespace {

TEST(VariantTextTest, ReadsWhatPropertiesAreWrittenAs) {
  EXPECT_EQ(*ParseVariantText("'inactive-or-failed'"), Value::String("inactive-or-failed"));
  EXPECT_EQ(*ParseVariantText("true"), Value::Bool(true));
  EXPECT_EQ(*ParseVariantText(" uint64 120000000 "), Value::Uint64(120000000));
  EXPECT_EQ(*ParseVariantText("uint32 0x10"), Value::Uint32(16));
  EXPECT_EQ(ParseVariantText("-5")->signature, "i");
  EXPECT_EQ(static_cast<int64_t>(ParseVariantText("-5")->number), -5);
  EXPECT_EQ(ParseVariantText("1.5")->signature, "d");
  EXPECT_EQ(*ParseVariantText("@t 7"), Value::Uint64(7));
  EXPECT_EQ(*ParseVariantText("['a', \"b\\n\"]"),
            Value::Array("s", {Value::String("a"), Value::String("b\n")}));
  EXPECT_EQ(*ParseVariantText("@as []"), Value::Array("s", {}));
  EXPECT_EQ(*ParseVariantText("[uint32 1, 2]"),
            Value::Array("u", {Value::Uint32(1), Value::Uint32(2)}));
  EXPECT_EQ(*ParseVariantText("[('/x', true)]"),
            Value::Array("(sb)", {Value::Struct({Value::String("/x"), Value::Bool(true)})}));
  EXPECT_EQ(*ParseVariantText("(1,)"), Value::Struct({{.signature = "i", .number = 1}}));
  EXPECT_EQ(*ParseVariantText("<'x'>"), Value::Variant(Value::String("x")));
  EXPECT_EQ(ParseVariantText("{'a': <1>}")->signature, "a{sv}");
  EXPECT_EQ(*ParseVariantText("[byte 1, 2]"), Value::Bytes(std::string("\1\2", 2)));
  EXPECT_EQ(*ParseVariantText("b'ab'"), Value::Bytes(std::string("ab\0", 3)));
  EXPECT_EQ(*ParseVariantText("objectpath '/a'"), Value::ObjectPath("/a"));
}

TEST(VariantTextTest, RefusesWhatIsNone) {
  for (const char* text : {"",
                           "'open",
                           "[",
                           "[]",
                           "[1, 'a']",
                           "()",
                           "{}",
                           "{'a' 1}",
                           "uint64 -1",
                           "byte 256",
                           "1 2",
                           "bogus",
                           "just 1",
                           "nothing",
                           "@ 1",
                           "@z 1",
                           "@as ['a', 1]",
                           "<1",
                           "--1",
                           "1x",
                           "objectpath 'a'",
                           "'\xff'",
                           "'\\u0041'",
                           "{<1>: 2}",
                           "int16 40000",
                           "2147483648",
                           "[1,,2]"}) {
    EXPECT_FALSE(ParseVariantText(text).ok()) << text;
  }
  EXPECT_FALSE(ParseVariantText(std::string(40, '[')).ok());
  EXPECT_FALSE(ParseVariantText(std::string(70000, '1')).ok());
}

TEST(VariantTextTest, ErrorsNameTheByte) {
  EXPECT_THAT(ParseVariantText("['a', 5]").status(),
              ::gantry::testing::Fails(absl::StatusCode::kInvalidArgument, "at byte 7"));
}

}  // namespace
}  // namespace gantry::dbus
