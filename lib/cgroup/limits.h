// Resources as the control files that say them: which file, which text. Pure functions, so that
// every conversion is tested without a kernel; limits.cc writes them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/oci/spec.h"

namespace gantry::cgroup {

struct Setting {
  std::string controller;  // Which v1 hierarchy; also what v2 must have enabled.
  std::string file;        // "memory.limit_in_bytes"
  std::string value;
  // Values for which a missing file is no error: what the kernel has dropped or made optional.
  bool optional = false;
};

// In the order in which they must be written. Device rules are not among them.
// Errors: InvalidArgument — v1: `unified` was given; v2: swap without a memory limit, or below it.
absl::StatusOr<std::vector<Setting>> SettingsV1(const oci::Resources& resources);
absl::StatusOr<std::vector<Setting>> SettingsV2(const oci::Resources& resources);

// Lines for devices.allow and devices.deny in order: (allow, "c 1:3 rwm").
struct DeviceLine {
  bool allow = false;
  std::string text;
};
std::vector<DeviceLine> DeviceLinesV1(const std::vector<oci::DeviceRule>& rules);

// The rules with the nodes every container has in between: deny all, those, then the caller's.
// Without rules at all the list is empty: nothing is restricted.
std::vector<oci::DeviceRule> WithDefaultDevices(const std::vector<oci::DeviceRule>& rules);

// cpu.shares (2 … 262144) to cpu.weight (1 … 10000), so that 1024 gives 100.
uint64_t CpuWeight(uint64_t shares);
// blkio weight (10 … 1000) to io.weight (1 … 10000).
uint64_t IoWeight(uint64_t weight);

// Replaces the device programs of the cgroup v2 directory by one that lets the rules through.
absl::Status AttachDeviceProgram(const std::string& directory,
                                 const std::vector<oci::DeviceRule>& rules);

}  // namespace gantry::cgroup
