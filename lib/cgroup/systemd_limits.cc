// Limits as properties of a unit: made from the same settings that go into the files, so that the
// two cannot say different things.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/cgroup/systemd_unit.h"

namespace gantry::cgroup {
namespace {

using dbus::Value;

constexpr int kVersionWithQuotaPeriod = 242;
constexpr int kVersionWithCpusets = 244;
constexpr int kVersionWithIdle = 252;
constexpr uint64_t kMicrosecondsPerSecond = 1000000;
constexpr uint64_t kQuotaStep = 10000;  // systemd keeps a quota in whole percents of a processor.
constexpr uint64_t kDefaultPeriod = 100000;

// Control files whose whole content is a number or "max", and the property that is the same.
struct NumberFile {
  absl::string_view file, property;
};
constexpr NumberFile kNumberFilesV2[] = {
    {"memory.max", "MemoryMax"}, {"memory.high", "MemoryHigh"},
    {"memory.low", "MemoryLow"}, {"memory.min", "MemoryMin"},
    {"pids.max", "TasksMax"},    {"memory.swap.max", "MemorySwapMax"},
    {"cpu.weight", "CPUWeight"}, {"io.weight", "IOWeight"}};
constexpr NumberFile kNumberFilesV1[] = {{"memory.limit_in_bytes", "MemoryLimit"},
                                         {"cpu.shares", "CPUShares"},
                                         {"blkio.bfq.weight|blkio.weight", "BlockIOWeight"},
                                         {"pids.max", "TasksMax"}};

class Properties {
 public:
  void Set(absl::string_view name, Value value) {
    auto same = [&](const UnitProperty& property) { return property.name == name; };
    list_.erase(std::remove_if(list_.begin(), list_.end(), same), list_.end());
    list_.push_back({std::string(name), std::move(value)});
  }
  std::vector<UnitProperty> Take() { return std::move(list_); }

 private:
  std::vector<UnitProperty> list_;
};

// "max" and v1's -1 are systemd's infinity.
bool ParseLimit(absl::string_view text, uint64_t* number) {
  *number = UINT64_MAX;
  return text == "max" || text == "-1" ||
         absl::SimpleAtoi(absl::StripPrefix(text, "default "), number);
}

// `quota` of each `period` in microseconds; quota UINT64_MAX: none.
void SetQuota(uint64_t quota, uint64_t period, int version, Properties& properties) {
  if (period != 0 && version >= kVersionWithQuotaPeriod) {
    properties.Set("CPUQuotaPeriodUSec", Value::Uint64(period));
  }
  if (period == 0) period = kDefaultPeriod;
  uint64_t per_second = UINT64_MAX;
  // Rounded up: the file, which is written afterwards, has the exact one.
  if (quota < UINT64_MAX / kMicrosecondsPerSecond) {
    per_second = quota * kMicrosecondsPerSecond / period;
    per_second = (per_second + kQuotaStep - 1) / kQuotaStep * kQuotaStep;
  }
  properties.Set("CPUQuotaPerSecUSec", Value::Uint64(per_second));
}

absl::Status SetList(const Setting& setting, int version, Properties& properties) {
  if (version < kVersionWithCpusets) return absl::OkStatus();
  absl::StatusOr<std::string> mask = BitMask(setting.value);
  if (!mask.ok()) return Annotate(mask.status(), setting.file);
  properties.Set(setting.file == "cpuset.cpus" ? "AllowedCPUs" : "AllowedMemoryNodes",
                 Value::Bytes(*std::move(mask)));
  return absl::OkStatus();
}

absl::Status AddV2(const Setting& setting, int version, Properties& properties) {
  for (const NumberFile& known : kNumberFilesV2) {
    uint64_t number = 0;
    // A value that is none is the kernel's to refuse, with the file's name.
    if (setting.file == known.file && ParseLimit(setting.value, &number)) {
      properties.Set(known.property, Value::Uint64(number));
    }
  }
  if (setting.file == "cpu.idle" && setting.value == "1" && version >= kVersionWithIdle) {
    properties.Set("CPUWeight", Value::Uint64(0));
  }
  if (setting.file == "cpu.max") {
    const std::pair<absl::string_view, absl::string_view> halves =
        absl::StrSplit(setting.value, absl::MaxSplits(' ', 1));
    uint64_t quota = 0, period = 0;
    if (ParseLimit(halves.first, &quota)) {
      (void)absl::SimpleAtoi(halves.second, &period);
      SetQuota(quota, period, version, properties);
    }
  }
  const bool list = setting.file == "cpuset.cpus" || setting.file == "cpuset.mems";
  return list && !setting.value.empty() ? SetList(setting, version, properties) : absl::OkStatus();
}

void AddV1(const std::vector<Setting>& settings, int version, Properties& properties) {
  uint64_t quota = UINT64_MAX, period = 0;
  bool limited = false;
  for (const Setting& setting : settings) {
    uint64_t number = 0;
    if (!ParseLimit(setting.value, &number)) continue;
    if (setting.file == "cpu.cfs_quota_us") quota = number;
    if (setting.file == "cpu.cfs_period_us") period = number;
    limited = limited || absl::StartsWith(setting.file, "cpu.cfs_");
    for (const NumberFile& known : kNumberFilesV1) {
      if (setting.file == known.file) properties.Set(known.property, Value::Uint64(number));
    }
  }
  if (limited) SetQuota(quota, period, version, properties);
}

// The name of a driver in /proc/devices, e.g. 136 in "Character devices:" is "pts".
std::string DriverOf(absl::string_view proc_devices, absl::string_view type, int64_t major) {
  bool wanted = false;
  for (absl::string_view line : absl::StrSplit(proc_devices, '\n')) {
    if (absl::EndsWith(line, "devices:")) {
      wanted = absl::StartsWith(line, type == "b" ? "Block" : "Character");
      continue;
    }
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    int64_t number = 0;
    if (wanted && words.size() == 2 && absl::SimpleAtoi(words[0], &number) && number == major) {
      return std::string(words[1]);
    }
  }
  return "";
}

// What DeviceAllow calls the devices of a rule; empty: it cannot say that.
std::vector<std::string> NamesOf(const oci::DeviceRule& rule, absl::string_view proc_devices) {
  const int64_t major = rule.major.value_or(-1), minor = rule.minor.value_or(-1);
  std::vector<std::string> names;
  for (const char* type : {"b", "c"}) {
    const bool meant = rule.type.empty() || rule.type == "a" || rule.type == type;
    if (!meant) continue;
    const char* kind = *type == 'b' ? "block" : "char";
    if (major < 0 && minor < 0) {
      names.push_back(absl::StrCat(kind, "-*"));
    } else if (major >= 0 && minor >= 0) {
      names.push_back(absl::StrCat("/dev/", kind, "/", major, ":", minor));
    } else {
      const std::string driver = major < 0 ? "" : DriverOf(proc_devices, type, major);
      if (driver.empty()) return {};
      names.push_back(absl::StrCat(kind, "-", driver));
    }
  }
  return names;
}

}  // namespace

absl::StatusOr<std::vector<UnitProperty>> LimitProperties(Mode mode,
                                                          const oci::Resources& resources,
                                                          int version) {
  Properties properties;
  if (mode != Mode::kV2) {
    ASSIGN_OR_RETURN(std::vector<Setting> settings, SettingsV1(resources));
    AddV1(settings, version, properties);
    return properties.Take();
  }
  ASSIGN_OR_RETURN(std::vector<Setting> settings, SettingsV2(resources));
  for (const Setting& setting : settings) RETURN_IF_ERROR(AddV2(setting, version, properties));
  return properties.Take();
}

std::vector<UnitProperty> DeviceProperties(const std::vector<oci::DeviceRule>& rules,
                                           absl::string_view proc_devices) {
  const std::vector<oci::DeviceRule> all = WithDefaultDevices(rules);
  std::vector<Value> allowed;
  for (size_t i = 1; i < all.size(); ++i) {  // The first denies everything.
    const std::vector<std::string> names = NamesOf(all[i], proc_devices);
    // A list of what is allowed, in any order, has no exceptions.
    if (!all[i].allow || names.empty()) return {};
    const std::string access = all[i].access.empty() ? "rwm" : all[i].access;
    for (const std::string& name : names) {
      allowed.push_back(Value::Struct({Value::String(name), Value::String(access)}));
    }
  }
  if (allowed.empty()) return {};
  return {{"DevicePolicy", Value::String("strict")},
          {"DeviceAllow", Value::Array("(ss)", std::move(allowed))}};
}

}  // namespace gantry::cgroup
