#include "lib/cgroup/testing/fake_systemd.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace gantry::cgroup {
namespace {

using dbus::FakeBus;
using dbus::Message;
using dbus::Value;

constexpr char kPrefix[] = "org.freedesktop.systemd1.";

FakeBus::Answer JobRemoved(const std::string& job, const std::string& unit,
                           const std::string& result) {
  return FakeBus::Signal(
      "/org/freedesktop/systemd1", absl::StrCat(kPrefix, "Manager"), "JobRemoved",
      {Value::Uint32(1), Value::ObjectPath(job), Value::String(unit), Value::String(result)});
}

}  // namespace

void FakeSystemd::Serve(const std::string& path) {
  bus_ = std::make_unique<FakeBus>(path, [this](const Message& call) { return Answer(call); });
}

void FakeSystemd::set_slice(std::string slice) {
  absl::MutexLock lock(&mutex_);
  slice_ = std::move(slice);
}
void FakeSystemd::set_result(std::string result) {
  absl::MutexLock lock(&mutex_);
  result_ = std::move(result);
}
void FakeSystemd::set_occupied(bool occupied) {
  absl::MutexLock lock(&mutex_);
  occupied_ = occupied;
}
void FakeSystemd::set_gone(bool gone) {
  absl::MutexLock lock(&mutex_);
  gone_ = gone;
}

std::vector<std::string> FakeSystemd::calls() const {
  absl::MutexLock lock(&mutex_);
  return calls_;
}
Value FakeSystemd::properties() const {
  absl::MutexLock lock(&mutex_);
  return properties_;
}
std::vector<std::string> FakeSystemd::property_names() const {
  std::vector<std::string> names;
  for (const Value& one : properties().members) names.push_back(one.members[0].text);
  return names;
}
std::string FakeSystemd::asked_path() const {
  absl::MutexLock lock(&mutex_);
  return asked_path_;
}

FakeSystemd::Answers FakeSystemd::Answer(const Message& call) {
  absl::MutexLock lock(&mutex_);
  calls_.push_back(call.member);
  auto body = call.Body();
  EXPECT_TRUE(body.ok()) << body.status();
  if (call.member == "StartTransientUnit") return Start(call, *body);
  if (call.member == "StopUnit" || call.member == "ResetFailedUnit") return End(call, *body);
  if (call.member == "Get") return Get(call, *body);
  if (call.member == "SetUnitProperties") properties_ = (*body)[2];
  return {FakeBus::Reply(call)};
}

FakeSystemd::Answers FakeSystemd::Start(const Message& call, const std::vector<Value>& body) {
  if (occupied_) return {FakeBus::Error(call, absl::StrCat(kPrefix, "UnitExists"), "is there")};
  unit_ = body[0].text;
  properties_ = body[2];
  // Other clients' jobs end in between.
  return {JobRemoved("/job/other", "other.scope", "failed"),
          FakeBus::Reply(call, {Value::ObjectPath("/job/1")}),
          JobRemoved("/job/1", unit_, result_)};
}

FakeSystemd::Answers FakeSystemd::End(const Message& call, const std::vector<Value>& body) {
  if (call.member == "ResetFailedUnit") {
    occupied_ = false;
    return {FakeBus::Reply(call)};
  }
  if (gone_) return {FakeBus::Error(call, absl::StrCat(kPrefix, "NoSuchUnit"), "not loaded")};
  return {FakeBus::Reply(call, {Value::ObjectPath("/job/2")}),
          JobRemoved("/job/2", body[0].text, "done")};
}

FakeSystemd::Answers FakeSystemd::Get(const Message& call, const std::vector<Value>& body) {
  asked_path_ = call.path;
  const bool version = body[1].text == "Version";
  const std::string text = version ? "252.38-1~deb12u1" : absl::StrCat(slice_, "/", unit_);
  return {FakeBus::Reply(call, {Value::Variant(Value::String(text))})};
}

}  // namespace gantry::cgroup
