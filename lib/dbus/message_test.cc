#include "lib/dbus/message.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::dbus {
namespace {

using ::gantry::testing::Fails;

Message SomeCall() {
  Message message;
  message.type = MessageType::kCall;
  message.serial = 3;
  message.path = "/org/freedesktop/systemd1";
  message.interface = "org.freedesktop.systemd1.Manager";
  message.member = "StartTransientUnit";
  message.destination = "org.freedesktop.systemd1";
  return message;
}

std::vector<Value> SomeValues() {
  const auto property = [](const char* name, Value value) {
    return Value::Struct({Value::String(name), Value::Variant(std::move(value))});
  };
  return {Value::String("web.scope"),
          Value::Array("(sv)", {property("PIDs", Value::Array("u", {Value::Uint32(17)})),
                                property("Delegate", Value::Bool(true)),
                                property("AllowedCPUs", Value::Bytes(std::string("\x03\x00", 2))),
                                property("MemoryMax", Value::Uint64(1ull << 40))}),
          Value::Array("(sa(sv))", {})};
}

TEST(MessageTest, WhatIsWrittenIsReadTheSame) {
  const std::string bytes = WriteMessage(SomeCall(), SomeValues());

  auto length = MessageLength(bytes);
  ASSERT_OK(length);
  EXPECT_EQ(*length, bytes.size());
  auto message = ReadMessage(bytes);

  ASSERT_OK(message);
  EXPECT_EQ(message->member, "StartTransientUnit");
  EXPECT_EQ(message->destination, "org.freedesktop.systemd1");
  EXPECT_EQ(message->signature, "sa(sv)a(sa(sv))");
  auto body = message->Body();
  ASSERT_OK(body);
  EXPECT_EQ(*body, SomeValues());
}

TEST(MessageTest, TheBytesAreThoseOfTheSpecification) {
  Message hello;
  hello.type = MessageType::kCall;
  hello.serial = 1;
  hello.path = "/a";
  hello.member = "Hi";

  const std::string bytes = WriteMessage(hello, {{.signature = "y", .number = 7}});

  if (bytes[0] != 'l') GTEST_SKIP() << "needs a little-endian machine";
  // Order, type, flags, version, body's length, serial, length of the fields without their padding.
  const std::string fixed(
      "l\1\0\1"
      "\1\0\0\0"
      "\1\0\0\0"
      "\47\0\0\0",
      16);
  const std::string path(
      "\1\1o\0"
      "\2\0\0\0"
      "/a\0"
      "\0\0\0\0\0",
      16);
  const std::string member(
      "\3\1s\0"
      "\2\0\0\0"
      "Hi\0"
      "\0\0\0\0\0",
      16);
  const std::string signature(
      "\10\1g\0"
      "\1y\0"
      "\0",
      8);
  EXPECT_EQ(bytes, fixed + path + member + signature + "\7");
}

TEST(MessageTest, EveryTruncationIsRefused) {
  const std::string bytes = WriteMessage(SomeCall(), SomeValues());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(ReadMessage(bytes.substr(0, size)).ok()) << size;
  }
}

TEST(MessageTest, ForeignOrderVersionAndSizeAreRefused) {
  std::string bytes = WriteMessage(SomeCall(), {});
  std::string foreign = bytes, version = bytes, large = bytes;
  foreign[0] = foreign[0] == 'l' ? 'B' : 'l';
  version[3] = 2;
  large[6] = '\x7f';
  EXPECT_THAT(ReadMessage(foreign).status(),
              Fails(absl::StatusCode::kInvalidArgument, "byte order"));
  EXPECT_THAT(ReadMessage(version).status(),
              Fails(absl::StatusCode::kInvalidArgument, "version 1"));
  EXPECT_THAT(ReadMessage(large).status(),
              Fails(absl::StatusCode::kResourceExhausted, "more than"));
}

TEST(MessageTest, MessagesWithoutTheirNamesAreRefused) {
  Message call = SomeCall();
  call.member.clear();
  EXPECT_FALSE(ReadMessage(WriteMessage(call, {})).ok());
  Message reply;
  reply.type = MessageType::kReply;
  reply.serial = 1;
  EXPECT_FALSE(ReadMessage(WriteMessage(reply, {})).ok());
}

TEST(ValueTest, SignaturesFollowTheGrammar) {
  for (const char* good : {"", "s", "a{sv}", "a(ss)", "(iu(s))", "aaas", "vv", "a{s(ay)}"}) {
    EXPECT_OK(CheckSignature(good)) << good;
  }
  for (const char* bad : {"a", "(", "()", "(i", ")", "{sv}", "a{vs}", "a{s}", "a{sss}", "z", "m"}) {
    EXPECT_FALSE(CheckSignature(bad).ok()) << bad;
  }
  EXPECT_FALSE(CheckSignature(std::string(33, 'a') + "s").ok());
  EXPECT_FALSE(CheckSignature(std::string(256, 's')).ok());
}

TEST(ValueTest, WrongValuesAreRefused) {
  const auto read = [](absl::string_view bytes, absl::string_view signature) {
    return ReadAll(bytes, signature).status();
  };
  EXPECT_OK(read(absl::string_view("\1\0\0\0", 4), "b"));
  EXPECT_FALSE(read(absl::string_view("\2\0\0\0", 4), "b").ok());
  EXPECT_FALSE(read(absl::string_view("\1\0\0\0a", 5), "s").ok()) << "no zero byte";
  EXPECT_FALSE(read(absl::string_view("\1\0\0\0\xff\0", 6), "s").ok()) << "not UTF-8";
  EXPECT_FALSE(read(absl::string_view("\1\0\0\0\0\0", 6), "s").ok()) << "a zero byte inside";
  EXPECT_FALSE(read(absl::string_view("\3\0\0\0//a\0", 8), "o").ok());
  EXPECT_FALSE(read(absl::string_view("\1\1\0\0\2\0\0\0", 8), "yu").ok()) << "padding";
  EXPECT_FALSE(read(absl::string_view("\xff\xff\xff\xff", 4), "as").ok());
  EXPECT_FALSE(read(absl::string_view("\1\0\0\0\0", 5), "u").ok()) << "left-over bytes";
}

}  // namespace
}  // namespace gantry::dbus
