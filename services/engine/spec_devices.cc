// Parts of the OCI configuration: devices.
#include <errno.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/engine/spec_parts.h"

namespace gantry::engine {
namespace {

absl::Status Invalid(absl::string_view what) { return absl::InvalidArgumentError(what); }

absl::StatusOr<oci::DeviceRule> ParseDeviceRule(absl::string_view text) {
  const auto wrong = [&] {
    return absl::InvalidArgumentError(absl::StrCat("invalid device cgroup rule '", text,
                                                   "': it must be 'TYPE MAJOR:MINOR ACCESS'"));
  };
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ' ');
  if (parts.size() != 3 || (parts[0] != "a" && parts[0] != "b" && parts[0] != "c")) return wrong();
  const std::vector<absl::string_view> numbers = absl::StrSplit(parts[1], ':');
  if (numbers.size() != 2) return wrong();
  oci::DeviceRule rule{
      .allow = true, .type = std::string(parts[0]), .access = std::string(parts[2])};
  const auto number = [](absl::string_view word, std::optional<int64_t>* out) {
    if (word == "*") return true;
    int64_t value = 0;
    if (!absl::SimpleAtoi(word, &value) || value < 0) return false;
    *out = value;
    return true;
  };
  if (!number(numbers[0], &rule.major) || !number(numbers[1], &rule.minor)) return wrong();
  if (rule.access.empty() || rule.access.find_first_not_of("rwm") != std::string::npos) {
    return wrong();
  }
  return rule;
}

// One node of the host, and what the container may do with it.
void AddDevice(const struct stat& info, const std::string& path, const std::string& access,
               oci::Spec& spec) {
  oci::Device device;
  device.type = S_ISBLK(info.st_mode) ? "b" : "c";
  device.path = path;
  device.major = major(info.st_rdev);
  device.minor = minor(info.st_rdev);
  device.file_mode = info.st_mode & 07777;
  device.uid = info.st_uid;
  device.gid = info.st_gid;
  spec.linux_.resources->devices.push_back({.allow = true,
                                            .type = device.type,
                                            .major = device.major,
                                            .minor = device.minor,
                                            .access = access});
  spec.linux_.devices.push_back(std::move(device));
}

}  // namespace

absl::Status AddDevicesBelow(const std::string& host, const std::string& target,
                             const std::string& access, int depth, oci::Spec& spec) {
  absl::StatusOr<std::vector<std::string>> names = sys::ListDirectory(host);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();  // Gone since it was listed.
  RETURN_IF_ERROR(names.status());
  for (const std::string& name : *names) {
    struct stat info = {};
    const std::string path = absl::StrCat(host, "/", name);
    if (::lstat(path.c_str(), &info) != 0) continue;  // Gone since.
    const std::string inside = absl::StrCat(target, "/", name);
    if (S_ISDIR(info.st_mode) && depth > 0) {
      // The container has its own of these.
      if (host == "/dev" && (name == "pts" || name == "shm" || name == "mqueue" || name == "fd")) {
        continue;
      }
      RETURN_IF_ERROR(AddDevicesBelow(path, inside, access, depth - 1, spec));
    } else if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
      if (host == "/dev" && (name == "console" || name == "ptmx")) continue;
      AddDevice(info, inside, access, spec);
    }
  }
  return absl::OkStatus();
}

absl::Status AddDevices(const v1::ContainerConfig& config, oci::Spec& spec) {
  if (config.privileged()) {
    RETURN_IF_ERROR(AddDevicesBelow("/dev", "/dev", "rwm", 3, spec));
    spec.linux_.resources->devices = {{.allow = true, .access = "rwm"}};
    return absl::OkStatus();
  }
  for (const v1::Device& device : config.devices()) {
    const std::string target =
        device.container_path().empty() ? device.host_path() : device.container_path();
    const std::string access = device.permissions().empty() ? "rwm" : device.permissions();
    if (access.find_first_not_of("rwm") != std::string::npos) {
      return Invalid(absl::StrCat("invalid device mode '", access, "': it is made of r, w and m"));
    }
    struct stat info = {};
    // A link is followed, as people name devices by links (/dev/disk/by-id).
    if (::stat(device.host_path().c_str(), &info) != 0) {
      return sys::ErrnoError(errno, absl::StrCat("add the device '", device.host_path(), "'"));
    }
    if (S_ISDIR(info.st_mode)) {
      RETURN_IF_ERROR(AddDevicesBelow(device.host_path(), target, access, 3, spec));
    } else if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
      AddDevice(info, target, access, spec);
    } else {
      return Invalid(absl::StrCat("cannot add the device '", device.host_path(),
                                  "': it is not a device node"));
    }
  }
  for (const std::string& text : config.device_cgroup_rules()) {
    ASSIGN_OR_RETURN(oci::DeviceRule rule, ParseDeviceRule(text));
    spec.linux_.resources->devices.push_back(std::move(rule));
  }
  return absl::OkStatus();
}

}  // namespace gantry::engine
