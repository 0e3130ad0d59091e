#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/cgroup/limits.h"

namespace gantry::cgroup {
namespace {

std::string MaxOr(int64_t value) { return value < 0 ? "max" : absl::StrCat(value); }

absl::Status AddMemory(const oci::MemoryResources& memory, std::vector<Setting>& settings) {
  if (memory.limit.value_or(0) != 0) {
    settings.push_back({"memory", "memory.max", MaxOr(*memory.limit)});
  }
  if (memory.swap.value_or(0) != 0) {
    // The document counts memory and swap together, the kernel's file only swap.
    std::string value = "max";
    if (*memory.swap > 0) {
      if (memory.limit.value_or(0) <= 0) {
        return absl::InvalidArgumentError(
            "linux.resources.memory.swap: needs memory.limit, which it includes");
      }
      if (*memory.swap < *memory.limit) {
        return absl::InvalidArgumentError(
            "linux.resources.memory.swap: is memory and swap together, so it cannot be below "
            "memory.limit");
      }
      value = absl::StrCat(*memory.swap - *memory.limit);
    }
    settings.push_back({"memory", "memory.swap.max", value});
  }
  if (memory.reservation.value_or(0) != 0) {
    settings.push_back({"memory", "memory.low", MaxOr(*memory.reservation)});
  }
  return absl::OkStatus();
}

void AddCpu(const oci::CpuResources& cpu, std::vector<Setting>& settings) {
  if (cpu.shares.value_or(0) != 0 && cpu.idle.value_or(0) == 0) {
    settings.push_back({"cpu", "cpu.weight", absl::StrCat(CpuWeight(*cpu.shares))});
  }
  if (cpu.quota.value_or(0) != 0 || cpu.period.value_or(0) != 0) {
    constexpr uint64_t kDefaultPeriod = 100000;
    const int64_t quota = cpu.quota.value_or(0);
    settings.push_back({"cpu", "cpu.max",
                        absl::StrCat(quota > 0 ? absl::StrCat(quota) : "max", " ",
                                     cpu.period.value_or(0) != 0 ? *cpu.period : kDefaultPeriod)});
  }
  if (cpu.burst) settings.push_back({"cpu", "cpu.max.burst", absl::StrCat(*cpu.burst)});
  if (cpu.idle) settings.push_back({"cpu", "cpu.idle", absl::StrCat(*cpu.idle)});
  if (!cpu.cpus.empty()) settings.push_back({"cpuset", "cpuset.cpus", cpu.cpus});
  if (!cpu.mems.empty()) settings.push_back({"cpuset", "cpuset.mems", cpu.mems});
}

void AddThrottle(const char* key, const std::vector<oci::BlockIoResources::Throttle>& devices,
                 std::vector<Setting>& settings) {
  for (const auto& device : devices) {
    settings.push_back({"io", "io.max",
                        absl::StrCat(device.major, ":", device.minor, " ", key, "=",
                                     device.rate == 0 ? "max" : absl::StrCat(device.rate))});
  }
}

void AddBlockIo(const oci::BlockIoResources& io, std::vector<Setting>& settings) {
  if (io.weight.value_or(0) != 0) {
    // BFQ keeps v1's range; the general controller has its own.
    settings.push_back({"io", "io.bfq.weight", absl::StrCat(*io.weight), true});
    settings.push_back({"io", "io.weight", absl::StrCat(IoWeight(*io.weight)), true});
  }
  for (const auto& device : io.weight_devices) {
    if (!device.weight) continue;
    settings.push_back({"io", "io.bfq.weight",
                        absl::StrCat(device.major, ":", device.minor, " ", *device.weight)});
  }
  AddThrottle("rbps", io.read_bps, settings);
  AddThrottle("wbps", io.write_bps, settings);
  AddThrottle("riops", io.read_iops, settings);
  AddThrottle("wiops", io.write_iops, settings);
}

}  // namespace

uint64_t CpuWeight(uint64_t shares) {
  constexpr uint64_t kMinShares = 2, kMaxShares = 262144;
  shares = std::clamp(shares, kMinShares, kMaxShares);
  if (shares == kMinShares) return 1;
  if (shares == kMaxShares) return 10000;
  const double l = std::log2(static_cast<double>(shares));
  const double exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
  return static_cast<uint64_t>(std::ceil(std::pow(10.0, exponent)));
}

uint64_t IoWeight(uint64_t weight) {
  weight = std::clamp<uint64_t>(weight, 10, 1000);
  return 1 + (weight - 10) * 9999 / 990;
}

absl::StatusOr<std::vector<Setting>> SettingsV2(const oci::Resources& resources) {
  std::vector<Setting> settings;
  if (resources.memory) RETURN_IF_ERROR(AddMemory(*resources.memory, settings));
  if (resources.cpu) AddCpu(*resources.cpu, settings);
  if (resources.pids_limit) {
    const int64_t limit = *resources.pids_limit;
    settings.push_back({"pids", "pids.max", limit == 0 ? "1" : MaxOr(limit)});
  }
  if (resources.block_io) AddBlockIo(*resources.block_io, settings);
  for (const oci::HugepageLimit& limit : resources.hugepages) {
    settings.push_back(
        {"hugetlb", absl::StrCat("hugetlb.", limit.page_size, ".max"), absl::StrCat(limit.limit)});
    settings.push_back({"hugetlb", absl::StrCat("hugetlb.", limit.page_size, ".rsvd.max"),
                        absl::StrCat(limit.limit), true});
  }
  for (const auto& [device, limit] : resources.rdma) {
    std::string line = device;
    if (limit.hca_handles) absl::StrAppend(&line, " hca_handle=", *limit.hca_handles);
    if (limit.hca_objects) absl::StrAppend(&line, " hca_object=", *limit.hca_objects);
    settings.push_back({"rdma", "rdma.max", line});
  }
  // Last, so that it can refine what the older members said.
  for (const auto& [file, value] : resources.unified) {
    const std::string controller = file.substr(0, file.find('.'));
    for (absl::string_view line : absl::StrSplit(value, '\n', absl::SkipEmpty())) {
      settings.push_back({controller, file, std::string(line)});
    }
    if (value.empty()) settings.push_back({controller, file, ""});
  }
  return settings;
}

}  // namespace gantry::cgroup
