#include "lib/cgroup/systemd_unit.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::cgroup {
namespace {

using dbus::Value;
using ::gantry::testing::Fails;

constexpr int kVersion = 252;

UnitName Parse(absl::string_view path, bool user = false) {
  auto name = ParseUnitPath(path, "web", user);
  EXPECT_OK(name);
  return name.ok() ? *name : UnitName();
}

// The value of a property; an empty signature when it is not there.
Value Find(const std::vector<UnitProperty>& properties, absl::string_view name) {
  Value found;
  for (const UnitProperty& property : properties) {
    if (property.name != name) continue;
    EXPECT_EQ(found.signature, "") << name << " is there twice";
    found = property.value;
  }
  return found;
}

TEST(UnitPathTest, NamesScopeAndSlice) {
  EXPECT_EQ(Parse("machine.slice:libpod:12ab").slice, "machine.slice");
  EXPECT_EQ(Parse("machine.slice:libpod:12ab").unit, "libpod-12ab.scope");
  EXPECT_EQ(Parse(":cri-containerd:12").slice, "system.slice");
  EXPECT_EQ(Parse(":cri-containerd:12", true).slice, "user.slice");
  EXPECT_EQ(Parse("a.slice::name").unit, "name.scope");
  EXPECT_EQ(Parse("a.slice:x:kube-pod1.slice").unit, "kube-pod1.slice");
  EXPECT_TRUE(Parse("a.slice:x:kube-pod1.slice").is_slice());
  EXPECT_EQ(Parse("").unit, "gantry-web.scope");
  EXPECT_EQ(Parse("-.slice:a:b").slice, "");
}

TEST(UnitPathTest, RefusesWhatIsNoUnit) {
  for (const char* path : {"/gantry/web", "a.slice:b", "a.slice:b:c:d", "a.slice:b:", "a:b:c",
                           "a/b.slice:c:d", "a--b.slice:c:d", "-a.slice:c:d", "a.slice:c:d/e",
                           "a.slice:../c:d", "a.slice:c:d\n", "a.slice:c:x y"}) {
    EXPECT_THAT(ParseUnitPath(path, "web", false).status(),
                Fails(absl::StatusCode::kInvalidArgument, "linux.cgroupsPath"))
        << path;
  }
  EXPECT_FALSE(ParseUnitPath("a.slice:b:" + std::string(300, 'c'), "web", false).ok());
}

TEST(UnitPathTest, ExpandsDashesOfSlices) {
  EXPECT_EQ(ExpandSlice("system.slice"), "/system.slice");
  EXPECT_EQ(ExpandSlice("a-b-c.slice"), "/a.slice/a-b.slice/a-b-c.slice");
  EXPECT_EQ(ExpandSlice(""), "");
}

TEST(LimitPropertiesTest, SaysWhatTheFilesOfV2Say) {
  oci::Resources resources;
  resources.memory =
      oci::MemoryResources{.limit = 64 << 20, .reservation = 32 << 20, .swap = 96 << 20};
  resources.cpu = oci::CpuResources{
      .shares = 1024, .quota = 50000, .period = 200000, .cpus = "0-1,9", .mems = "0"};
  resources.pids_limit = -1;
  resources.block_io = oci::BlockIoResources{.weight = 10};

  auto properties = LimitProperties(Mode::kV2, resources, kVersion);

  ASSERT_OK(properties);
  EXPECT_EQ(Find(*properties, "MemoryMax"), Value::Uint64(64 << 20));
  EXPECT_EQ(Find(*properties, "MemoryLow"), Value::Uint64(32 << 20));
  EXPECT_EQ(Find(*properties, "MemorySwapMax"), Value::Uint64(32 << 20));
  EXPECT_EQ(Find(*properties, "CPUWeight"), Value::Uint64(100));
  EXPECT_EQ(Find(*properties, "CPUQuotaPerSecUSec"), Value::Uint64(250000));
  EXPECT_EQ(Find(*properties, "CPUQuotaPeriodUSec"), Value::Uint64(200000));
  EXPECT_EQ(Find(*properties, "AllowedCPUs"), Value::Bytes("\x03\x02"));
  EXPECT_EQ(Find(*properties, "AllowedMemoryNodes"), Value::Bytes("\x01"));
  EXPECT_EQ(Find(*properties, "TasksMax"), Value::Uint64(UINT64_MAX));
  EXPECT_EQ(Find(*properties, "IOWeight"), Value::Uint64(1));
}

TEST(LimitPropertiesTest, UnifiedRefinesTheOlderMembers) {
  oci::Resources resources;
  resources.memory = oci::MemoryResources{.limit = 64 << 20};
  resources.unified = {{"memory.max", "max"},    {"memory.high", "1048576"},
                       {"cpu.max", "max 50000"}, {"cpu.idle", "1"},
                       {"pids.max", "7"},        {"cpuset.cpus", "1"},
                       {"memory.oom.group", "1"}};

  auto properties = LimitProperties(Mode::kV2, resources, kVersion);

  ASSERT_OK(properties);
  EXPECT_EQ(Find(*properties, "MemoryMax"), Value::Uint64(UINT64_MAX));
  EXPECT_EQ(Find(*properties, "MemoryHigh"), Value::Uint64(1048576));
  EXPECT_EQ(Find(*properties, "CPUQuotaPerSecUSec"), Value::Uint64(UINT64_MAX));
  EXPECT_EQ(Find(*properties, "CPUQuotaPeriodUSec"), Value::Uint64(50000));
  EXPECT_EQ(Find(*properties, "CPUWeight"), Value::Uint64(0)) << "idle";
  EXPECT_EQ(Find(*properties, "TasksMax"), Value::Uint64(7));
  EXPECT_EQ(Find(*properties, "AllowedCPUs"), Value::Bytes("\x02"));
  EXPECT_EQ(properties->size(), 7u);
}

TEST(LimitPropertiesTest, AnOlderSystemdIsNotAskedForWhatItDoesNotKnow) {
  oci::Resources resources;
  resources.cpu = oci::CpuResources{.quota = 50000, .period = 100000, .cpus = "0"};

  auto properties = LimitProperties(Mode::kV2, resources, 239);

  ASSERT_OK(properties);
  EXPECT_EQ(Find(*properties, "CPUQuotaPerSecUSec"), Value::Uint64(500000));
  EXPECT_EQ(properties->size(), 1u);
}

TEST(LimitPropertiesTest, V1HasItsOwnNames) {
  oci::Resources resources;
  resources.memory = oci::MemoryResources{.limit = -1};
  resources.cpu = oci::CpuResources{.shares = 512, .quota = 33333};
  resources.pids_limit = 20;
  resources.block_io = oci::BlockIoResources{.weight = 500};

  auto properties = LimitProperties(Mode::kHybrid, resources, kVersion);

  ASSERT_OK(properties);
  EXPECT_EQ(Find(*properties, "MemoryLimit"), Value::Uint64(UINT64_MAX));
  EXPECT_EQ(Find(*properties, "CPUShares"), Value::Uint64(512));
  EXPECT_EQ(Find(*properties, "CPUQuotaPerSecUSec"), Value::Uint64(340000)) << "rounded up";
  EXPECT_EQ(Find(*properties, "TasksMax"), Value::Uint64(20));
  EXPECT_EQ(Find(*properties, "BlockIOWeight"), Value::Uint64(500));
}

TEST(LimitPropertiesTest, AWrongListNamesItsFile) {
  oci::Resources resources;
  resources.unified = {{"cpuset.cpus", "3-1"}};
  EXPECT_THAT(LimitProperties(Mode::kV2, resources, kVersion).status(),
              Fails(absl::StatusCode::kInvalidArgument, "cpuset.cpus: '3-1'"));
  for (const char* list : {"", "a", "1,", "-1", "99999999", "1-99999"}) {
    EXPECT_FALSE(BitMask(list).ok()) << list;
  }
}

constexpr char kDevices[] =
    "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n136 other\n";

TEST(DevicePropertiesTest, AListOfWhatIsAllowed) {
  const std::vector<oci::DeviceRule> rules = {
      {.allow = false, .access = "rwm"},
      {.allow = true, .type = "b", .major = 8, .minor = {}, .access = "r"}};

  const auto properties = DeviceProperties(rules, kDevices);

  EXPECT_EQ(Find(properties, "DevicePolicy"), Value::String("strict"));
  const Value allowed = Find(properties, "DeviceAllow");
  EXPECT_EQ(allowed.signature, "a(ss)");
  const auto has = [&](const char* name, const char* access) {
    return ::testing::Contains(Value::Struct({Value::String(name), Value::String(access)}));
  };
  EXPECT_THAT(allowed.members, has("block-sd", "r"));
  EXPECT_THAT(allowed.members, has("/dev/char/1:3", "rwm"));
  EXPECT_THAT(allowed.members, has("char-pts", "rwm"));
  EXPECT_THAT(allowed.members, has("char-*", "m"));
}

TEST(DevicePropertiesTest, WhatAListCannotSayIsLeftToTheFilter) {
  EXPECT_TRUE(DeviceProperties({}, kDevices).empty());
  EXPECT_TRUE(DeviceProperties({{.allow = false, .access = "rwm"},
                                {.allow = true, .access = "rwm"},
                                {.allow = false, .type = "b", .access = "w"}},
                               kDevices)
                  .empty())
      << "an exception from what is allowed";
  EXPECT_TRUE(DeviceProperties({{.allow = true, .type = "c", .major = 77, .access = "r"}}, kDevices)
                  .empty())
      << "a driver that nobody has";
}

TEST(AnnotationPropertiesTest, AreTypedValues) {
  auto properties =
      AnnotationProperties({{"org.systemd.property.CollectMode", "'inactive-or-failed'"},
                            {"org.systemd.property.TimeoutStopSec", "uint64 3"},
                            {"org.systemd.property.RuntimeMaxSec", "1.5"},
                            {"org.example.other", "not ours"}});

  ASSERT_OK(properties);
  EXPECT_EQ(Find(*properties, "CollectMode"), Value::String("inactive-or-failed"));
  EXPECT_EQ(Find(*properties, "TimeoutStopUSec"), Value::Uint64(3000000));
  EXPECT_EQ(Find(*properties, "RuntimeMaxUSec"), Value::Uint64(1500000));
  EXPECT_EQ(properties->size(), 3u);
}

TEST(AnnotationPropertiesTest, WrongOnesNameTheKey) {
  for (const auto& [key, text] : oci::StringMap{{"org.systemd.property.X", "1"},
                                                {"org.systemd.property.", "1"},
                                                {"org.systemd.property.A-Bc", "1"},
                                                {"org.systemd.property.After", "['a'"},
                                                {"org.systemd.property.StopSec", "'3'"},
                                                {"org.systemd.property.RunSec", "-3"}}) {
    EXPECT_THAT(AnnotationProperties({{key, text}}).status(),
                Fails(absl::StatusCode::kInvalidArgument, key));
  }
}

}  // namespace
}  // namespace gantry::cgroup
