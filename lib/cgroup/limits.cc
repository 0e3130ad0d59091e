#include "lib/cgroup/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/failpoint.h"
#include "lib/cgroup/cgroup.h"
#include "lib/cgroup/control_file.h"
#include "lib/sys/errno.h"

namespace gantry::cgroup {
namespace {

// A kernel that says no to a value says so about the caller's document.
absl::Status Blame(const absl::Status& status) {
  if (status.ok() || status.code() == absl::StatusCode::kPermissionDenied ||
      status.code() == absl::StatusCode::kNotFound) {
    return status;
  }
  return absl::InvalidArgumentError(status.message());
}

absl::Status WriteSetting(const Cgroup& cgroup, const Setting& setting) {
  const std::string directory = cgroup.DirectoryOf(setting.controller);
  if (directory.empty()) {
    if (setting.optional) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("set ", setting.file, " to '", setting.value,
                                                   "': the cgroup controller '", setting.controller,
                                                   "' is not mounted on this machine"));
  }
  // "new|old": names of the same file in different kernels.
  absl::Status status;
  for (absl::string_view file : absl::StrSplit(setting.file, '|')) {
    status = WriteControl(directory, file, setting.value);
    if (!absl::IsNotFound(status)) break;
  }
  if (setting.optional) return absl::OkStatus();
  return Blame(status);
}

absl::Status WriteDevicesV1(const std::string& directory,
                            const std::vector<oci::DeviceRule>& rules) {
  sys::UniqueFd allow(
      ::open(absl::StrCat(directory, "/devices.allow").c_str(), O_WRONLY | O_CLOEXEC));
  sys::UniqueFd deny(
      ::open(absl::StrCat(directory, "/devices.deny").c_str(), O_WRONLY | O_CLOEXEC));
  if (!allow.ok() || !deny.ok()) {
    return sys::ErrnoError(errno, absl::StrCat("open the device lists in '", directory, "'"));
  }
  for (const DeviceLine& line : DeviceLinesV1(WithDefaultDevices(rules))) {
    const int fd = line.allow ? allow.get() : deny.get();
    if (::write(fd, line.text.data(), line.text.size()) < 0) {
      return sys::ErrnoError(errno, absl::StrCat(line.allow ? "allow" : "deny", " device '",
                                                 line.text, "' in '", directory, "'"));
    }
  }
  return absl::OkStatus();
}

absl::Status ApplyDevices(const Cgroup& cgroup, const std::vector<oci::DeviceRule>& rules) {
  if (rules.empty()) return absl::OkStatus();
  const std::string directory = cgroup.DirectoryOf("devices");
  if (cgroup.mode() == Mode::kV2) return AttachDeviceProgram(directory, WithDefaultDevices(rules));
  if (directory.empty()) {
    return absl::InvalidArgumentError(
        "linux.resources.devices: the cgroup controller 'devices' is not mounted on this machine");
  }
  return WriteDevicesV1(directory, rules);
}

absl::StatusOr<std::vector<Setting>> Settings(const Cgroup& cgroup,
                                              const oci::Resources& resources) {
  return cgroup.mode() == Mode::kV2 ? SettingsV2(resources) : SettingsV1(resources);
}

absl::Status CheckUsage(const Cgroup& cgroup, const oci::MemoryResources& memory) {
  if (!memory.check_before_update.value_or(false) || memory.limit.value_or(-1) <= 0) {
    return absl::OkStatus();
  }
  const bool v2 = cgroup.mode() == Mode::kV2;
  const uint64_t usage =
      ReadNumber(cgroup.DirectoryOf("memory"), v2 ? "memory.current" : "memory.usage_in_bytes");
  if (static_cast<uint64_t>(*memory.limit) >= usage) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("linux.resources.memory.limit: unable to set the memory limit to ",
                   *memory.limit, " bytes, as ", usage, " bytes are in use (checkBeforeUpdate)"));
}

// memory.limit_in_bytes may never be above memory.memsw.limit_in_bytes, not even between two
// writes: when the new memory limit is above the old sum, the sum goes first.
void OrderMemoryV1(const Cgroup& cgroup, std::vector<Setting>& settings) {
  auto limit = settings.end(), sum = settings.end();
  for (auto it = settings.begin(); it != settings.end(); ++it) {
    if (it->file == "memory.limit_in_bytes") limit = it;
    if (it->file == "memory.memsw.limit_in_bytes") sum = it;
  }
  if (limit == settings.end() || sum == settings.end()) return;
  const uint64_t current = ReadNumber(cgroup.DirectoryOf("memory"), "memory.memsw.limit_in_bytes");
  int64_t wanted = 0;
  if (!absl::SimpleAtoi(limit->value, &wanted)) return;
  if (wanted < 0 || static_cast<uint64_t>(wanted) > current) std::swap(*limit, *sum);
}

}  // namespace

absl::Status Cgroup::Apply(const oci::Resources& resources, bool rootless) const {
  RETURN_IF_ERROR(FAILPOINT("cgroup.apply.before_limits"));
  ASSIGN_OR_RETURN(std::vector<Setting> settings, Settings(*this, resources));
  for (const Setting& setting : settings) RETURN_IF_ERROR(WriteSetting(*this, setting));
  return rootless ? absl::OkStatus() : ApplyDevices(*this, resources.devices);
}

absl::Status Cgroup::CheckUpdate(const oci::Resources& resources) const {
  return resources.memory ? CheckUsage(*this, *resources.memory) : absl::OkStatus();
}

absl::Status Cgroup::Update(const oci::Resources& resources) const {
  RETURN_IF_ERROR(CheckUpdate(resources));
  ASSIGN_OR_RETURN(std::vector<Setting> settings, Settings(*this, resources));
  if (mode_ != Mode::kV2) OrderMemoryV1(*this, settings);
  for (const Setting& setting : settings) RETURN_IF_ERROR(WriteSetting(*this, setting));
  return ApplyDevices(*this, resources.devices);
}

}  // namespace gantry::cgroup
