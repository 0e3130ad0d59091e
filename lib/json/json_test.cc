#include "lib/json/json.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::json {
namespace {

using ::gantry::testing::Fails;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TEST(JsonTest, ReadsTypedMembers) {
  auto document = Document::Parse(
      R"({"name":"web","uid":4294967295,"offset":-5,"on":true,"args":["a","b"],"labels":{"x":"1"}})");
  ASSERT_OK(document);

  std::string name;
  uint32_t uid = 0;
  int64_t offset = 0;
  bool on = false;
  std::vector<std::string> args;
  std::map<std::string, std::string> labels;
  ASSERT_OK(document->root().Required("name", &name));
  ASSERT_OK(document->root().Required("uid", &uid));
  ASSERT_OK(document->root().Optional("offset", &offset));
  ASSERT_OK(document->root().Optional("on", &on));
  ASSERT_OK(document->root().Optional("args", &args));
  ASSERT_OK(document->root().Optional("labels", &labels));

  EXPECT_EQ(name, "web");
  EXPECT_EQ(uid, 4294967295u);
  EXPECT_EQ(offset, -5);
  EXPECT_TRUE(on);
  EXPECT_THAT(args, ElementsAre("a", "b"));
  EXPECT_THAT(labels, ElementsAre(Pair("x", "1")));
}

TEST(JsonTest, NamesThePathOfAWrongValue) {
  auto document = Document::Parse(R"({"process":{"user":{"gids":[1,2,"root"]}}})");
  ASSERT_OK(document);

  std::vector<uint32_t> gids;
  absl::Status status = document->root().Find("process")->Find("user")->Required("gids", &gids);

  EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument,
                            "process.user.gids[2]: expected an integer from 0 to 4294967295"));
}

TEST(JsonTest, NamesThePathOfAMissingMember) {
  auto document = Document::Parse(R"({"root":{}})");
  ASSERT_OK(document);
  std::string path;

  EXPECT_THAT(document->root().Find("root")->Required("path", &path),
              Fails(absl::StatusCode::kInvalidArgument, "root.path: required, but missing"));
}

TEST(JsonTest, TreatsNullAsAbsent) {
  auto document = Document::Parse(R"({"args":null})");
  ASSERT_OK(document);
  std::vector<std::string> args = {"kept"};

  ASSERT_OK(document->root().Optional("args", &args));

  EXPECT_THAT(args, ElementsAre("kept"));
  EXPECT_THAT(document->root().Required("args", &args),
              Fails(absl::StatusCode::kInvalidArgument, "missing"));
}

TEST(JsonTest, RefusesNumbersOutOfRangeAndFractions) {
  auto document = Document::Parse(R"({"big":4294967296,"negative":-1,"half":0.5,"huge":1e30})");
  ASSERT_OK(document);
  uint32_t number = 0;
  int64_t wide = 0;

  EXPECT_FALSE(document->root().Required("big", &number).ok());
  EXPECT_FALSE(document->root().Required("negative", &number).ok());
  EXPECT_FALSE(document->root().Required("half", &number).ok());
  EXPECT_FALSE(document->root().Required("huge", &wide).ok());
}

TEST(JsonTest, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_THAT(Document::Parse(R"({"a":1,"a":2})"),
              Fails(absl::StatusCode::kInvalidArgument, "a: the key appears twice"));
  EXPECT_THAT(Document::Parse(R"({"a":[{"b":{"c":1,"c":1}}]})"),
              Fails(absl::StatusCode::kInvalidArgument, "a[0].b.c: the key appears twice"));
  EXPECT_FALSE(Document::Parse("{\"a\":1,\"\\u0061\":2}").ok())
      << "the same key, spelled differently";
}

TEST(JsonTest, RefusesTrailingDataAndHalfDocuments) {
  EXPECT_FALSE(Document::Parse("{} {}").ok());
  EXPECT_FALSE(Document::Parse("{}x").ok());
  EXPECT_FALSE(Document::Parse("{").ok());
  EXPECT_FALSE(Document::Parse("").ok());
  EXPECT_FALSE(Document::Parse("{'a':1}").ok());
  EXPECT_FALSE(Document::Parse("{\"a\":1,}").ok());
  EXPECT_FALSE(Document::Parse("{\"a\":NaN}").ok());
  EXPECT_OK(Document::Parse(" {} \n"));
}

TEST(JsonTest, RefusesInvalidUtf8) {
  EXPECT_FALSE(Document::Parse("{\"a\":\"\xff\"}").ok());
  EXPECT_FALSE(Document::Parse("{\"a\":\"\xed\xa0\x80\"}").ok()) << "a surrogate";
}

TEST(JsonTest, AcceptsSixtyFourLevelsAndRefusesMore) {
  const auto nested = [](size_t levels) {
    return std::string(levels, '[') + std::string(levels, ']');
  };
  EXPECT_OK(Document::Parse(nested(64)));
  EXPECT_THAT(Document::Parse(nested(65)),
              Fails(absl::StatusCode::kInvalidArgument, "deeper than 64"));
  EXPECT_FALSE(Document::Parse(std::string(1 << 20, '[')).ok());
}

TEST(JsonTest, RefusesDocumentsOverTheLimit) {
  EXPECT_THAT(Document::Parse("[1,2,3]", 3),
              Fails(absl::StatusCode::kResourceExhausted, "7 bytes"));
}

TEST(JsonTest, ErrorsSayWhereTheSyntaxIsWrong) {
  EXPECT_THAT(Document::Parse("{\n  \"a\": ?\n}"),
              Fails(absl::StatusCode::kInvalidArgument, "line 2, column 8"));
}

TEST(JsonTest, KeepsZeroBytesInsideStrings) {
  auto document = Document::Parse("{\"a\":\"x\\u0000y\"}");
  ASSERT_OK(document);
  std::string text;
  ASSERT_OK(document->root().Required("a", &text));
  EXPECT_EQ(text, std::string("x\0y", 3));
}

TEST(JsonTest, WriterSeparatesAndEscapes) {
  Writer writer;
  writer.BeginObject();
  writer.Member("id", "a\"b\n\x01");
  writer.Member("pid", 42);
  writer.Key("list");
  writer.BeginArray();
  writer.Write(true);
  writer.WriteNull();
  writer.BeginObject();
  writer.EndObject();
  writer.EndArray();
  writer.Member("tags", std::map<std::string, std::string>{{"k", "v"}});
  writer.EndObject();

  EXPECT_EQ(writer.Take(),
            R"({"id":"a\"b\n\u0001","pid":42,"list":[true,null,{}],"tags":{"k":"v"}})");
}

TEST(JsonTest, WriterMendsInvalidUtf8) {
  Writer writer;
  writer.Write(
      absl::string_view("a\xff"
                        "b"));
  EXPECT_EQ(writer.Take(),
            "\"a\xEF\xBF\xBD"
            "b\"");
}

TEST(JsonTest, WhatIsWrittenIsReadBack) {
  Writer writer;
  writer.BeginObject();
  writer.Member("u", uint64_t{18446744073709551615u});
  writer.Member("i", int64_t{-9223372036854775807 - 1});
  writer.EndObject();
  auto document = Document::Parse(writer.Take());
  ASSERT_OK(document);
  uint64_t u = 0;
  int64_t i = 0;
  ASSERT_OK(document->root().Required("u", &u));
  ASSERT_OK(document->root().Required("i", &i));
  EXPECT_EQ(u, 18446744073709551615u);
  EXPECT_EQ(i, INT64_MIN);
}

TEST(JsonTest, IndentIsForPeople) {
  EXPECT_THAT(Indent(R"({"a":[1]})"), HasSubstr("\n  \"a\": ["));
}

}  // namespace
}  // namespace gantry::json
