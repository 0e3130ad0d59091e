#include "lib/dbus/connection.h"

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/dbus/testing/fake_bus.h"
#include "lib/sys/temp_dir.h"
#include "lib/testing/status_matchers.h"

namespace gantry::dbus {
namespace {

using ::gantry::testing::Fails;
using Answers = std::vector<FakeBus::Answer>;

class ConnectionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = sys::TempDir::Create();
    ASSERT_OK(made);
    directory_ = std::make_unique<sys::TempDir>(std::move(*made));
  }
  std::string path() const { return directory_->path() + "/bus"; }
  absl::StatusOr<Connection> Open(Peer peer = Peer::kDirect,
                                  absl::Duration timeout = absl::Seconds(20)) {
    return Connection::Open(path(), peer, absl::Now() + timeout);
  }
  std::unique_ptr<sys::TempDir> directory_;
};

TEST_F(ConnectionTest, SaysHelloToABusAndNotToAPeer) {
  std::vector<std::string> members;
  FakeBus bus(path(), [&](const Message& call) {
    members.push_back(call.member);
    return Answers{FakeBus::Reply(call, {Value::String(":1.7")})};
  });

  ASSERT_OK(Open(Peer::kBus));
  auto direct = Open(Peer::kDirect);
  ASSERT_OK(direct);
  ASSERT_OK(direct->Call({.path = "/", .interface = "a.b", .member = "Method"}, {}));

  EXPECT_THAT(members, ::testing::ElementsAre("Hello", "Method"));
}

TEST_F(ConnectionTest, KeepsSignalsThatComeBeforeTheReply) {
  FakeBus bus(path(), [&](const Message& call) {
    return Answers{FakeBus::Signal("/", "a.b", "Other", {}),
                   FakeBus::Signal("/", "a.b", "Wanted", {Value::Uint32(7)}),
                   FakeBus::Reply(call, {Value::ObjectPath("/job")})};
  });
  auto connection = Open();
  ASSERT_OK(connection);

  auto reply = connection->Call({.path = "/", .interface = "a.b", .member = "M"}, {});
  auto signal = connection->WaitForSignal([](const Message& m) { return m.member == "Wanted"; });

  ASSERT_OK(reply);
  ASSERT_OK(signal);
  EXPECT_EQ((*signal->Body())[0].number, 7u);
}

TEST_F(ConnectionTest, ErrorsOfTheOtherEndHaveACodeAndTheirText) {
  FakeBus bus(path(), [](const Message& call) {
    return Answers{FakeBus::Error(call, call.member, "because \x1b")};
  });
  auto connection = Open();
  ASSERT_OK(connection);
  const auto call = [&](const char* name) {
    return connection->Call({.path = "/", .interface = "a.b", .member = name}, {}).status();
  };

  EXPECT_THAT(call("org.freedesktop.systemd1.NoSuchUnit"),
              Fails(absl::StatusCode::kNotFound, "NoSuchUnit: because \\x1b"));
  EXPECT_THAT(call("org.freedesktop.systemd1.UnitExists"),
              Fails(absl::StatusCode::kAlreadyExists, "because"));
  EXPECT_THAT(call("org.freedesktop.DBus.Error.AccessDenied"),
              Fails(absl::StatusCode::kPermissionDenied, "because"));
  EXPECT_THAT(call("org.example.Other"), Fails(absl::StatusCode::kFailedPrecondition, "because"));
}

TEST_F(ConnectionTest, ARefusalIsPermissionDenied) {
  FakeBus bus(
      path(), [](const Message&) { return Answers{}; }, "REJECTED EXTERNAL\r\n");

  EXPECT_THAT(Open().status(), Fails(absl::StatusCode::kPermissionDenied, "REJECTED EXTERNAL"));
}

TEST_F(ConnectionTest, NobodyThereIsNotFound) {
  EXPECT_THAT(Open().status(), Fails(absl::StatusCode::kNotFound, path()));
}

TEST_F(ConnectionTest, SilenceEndsAtTheDeadline) {
  FakeBus bus(path(), [](const Message&) { return Answers{}; });
  auto connection = Open(Peer::kDirect, absl::Milliseconds(200));
  ASSERT_OK(connection);

  absl::Status status =
      connection->Call({.path = "/", .interface = "a.b", .member = "M"}, {}).status();

  EXPECT_THAT(status, Fails(absl::StatusCode::kDeadlineExceeded, "did not answer in time"));
}

TEST_F(ConnectionTest, AConnectionThatEndsIsUnavailable) {
  auto bus = std::make_unique<FakeBus>(path(), [](const Message&) { return Answers{}; });
  auto connection = Open();
  ASSERT_OK(connection);
  bus.reset();

  EXPECT_THAT(connection->Call({.path = "/", .interface = "a.b", .member = "M"}, {}).status(),
              Fails(absl::StatusCode::kUnavailable, "closed"));
}

}  // namespace
}  // namespace gantry::dbus
