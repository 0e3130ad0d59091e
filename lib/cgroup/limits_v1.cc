#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/cgroup/limits.h"

namespace gantry::cgroup {
namespace {

class Settings {
 public:
  template <typename T>
  void Add(const char* controller, const char* file, const std::optional<T>& value,
           bool optional = false) {
    if (value) list_.push_back({controller, file, absl::StrCat(*value), optional});
  }
  void AddText(const char* controller, std::string file, std::string value, bool optional = false) {
    list_.push_back({controller, std::move(file), std::move(value), optional});
  }
  std::vector<Setting> Take() { return std::move(list_); }

 private:
  std::vector<Setting> list_;
};

void AddMemory(const oci::MemoryResources& memory, Settings& settings) {
  // A fresh cgroup has no limits: memory first, since memory + swap may never be below it.
  settings.Add("memory", "memory.limit_in_bytes", memory.limit);
  if (memory.swap.value_or(0) != 0)
    settings.Add("memory", "memory.memsw.limit_in_bytes", memory.swap);
  settings.Add("memory", "memory.soft_limit_in_bytes", memory.reservation);
  settings.Add("memory", "memory.swappiness", memory.swappiness);
  // The kernel has dropped these two (6.x); what they asked for is part of memory.limit_in_bytes
  // now.
  settings.Add("memory", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp, true);
  if (memory.disable_oom_killer.value_or(false)) {
    settings.AddText("memory", "memory.oom_control", "1");
  }
}

void AddCpu(const oci::CpuResources& cpu, Settings& settings) {
  if (cpu.shares.value_or(0) != 0) settings.Add("cpu", "cpu.shares", cpu.shares);
  if (cpu.realtime_period.value_or(0) != 0) {
    settings.Add("cpu", "cpu.rt_period_us", cpu.realtime_period);
  }
  if (cpu.realtime_runtime.value_or(0) != 0) {
    settings.Add("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime);
  }
  if (cpu.period.value_or(0) != 0) settings.Add("cpu", "cpu.cfs_period_us", cpu.period);
  if (cpu.quota.value_or(0) != 0) settings.Add("cpu", "cpu.cfs_quota_us", cpu.quota);
  settings.Add("cpu", "cpu.cfs_burst_us", cpu.burst);
  settings.Add("cpu", "cpu.idle", cpu.idle);
  if (!cpu.cpus.empty()) settings.AddText("cpuset", "cpuset.cpus", cpu.cpus);
  if (!cpu.mems.empty()) settings.AddText("cpuset", "cpuset.mems", cpu.mems);
}

void AddThrottle(const char* file, const std::vector<oci::BlockIoResources::Throttle>& devices,
                 Settings& settings) {
  for (const auto& device : devices) {
    settings.AddText("blkio", file,
                     absl::StrCat(device.major, ":", device.minor, " ", device.rate));
  }
}

void AddBlockIo(const oci::BlockIoResources& io, Settings& settings) {
  // Kernels since 5.0 have the weight under the name of the scheduler that knows it.
  if (io.weight.value_or(0) != 0) {
    settings.Add("blkio", "blkio.bfq.weight|blkio.weight", io.weight);
  }
  if (io.leaf_weight.value_or(0) != 0) {
    settings.Add("blkio", "blkio.leaf_weight", io.leaf_weight, true);
  }
  for (const auto& device : io.weight_devices) {
    const std::string number = absl::StrCat(device.major, ":", device.minor, " ");
    if (device.weight) {
      settings.AddText("blkio", "blkio.bfq.weight_device|blkio.weight_device",
                       absl::StrCat(number, *device.weight));
    }
    if (device.leaf_weight) {
      settings.AddText("blkio", "blkio.leaf_weight_device",
                       absl::StrCat(number, *device.leaf_weight), true);
    }
  }
  AddThrottle("blkio.throttle.read_bps_device", io.read_bps, settings);
  AddThrottle("blkio.throttle.write_bps_device", io.write_bps, settings);
  AddThrottle("blkio.throttle.read_iops_device", io.read_iops, settings);
  AddThrottle("blkio.throttle.write_iops_device", io.write_iops, settings);
}

std::string NumberOrStar(const std::optional<int64_t>& number) {
  return number.value_or(-1) < 0 ? "*" : absl::StrCat(*number);
}

}  // namespace

absl::StatusOr<std::vector<Setting>> SettingsV1(const oci::Resources& resources) {
  if (!resources.unified.empty()) {
    return absl::InvalidArgumentError(
        "linux.resources.unified: needs cgroup v2; this machine has cgroup v1");
  }
  Settings settings;
  if (resources.memory) AddMemory(*resources.memory, settings);
  if (resources.cpu) AddCpu(*resources.cpu, settings);
  if (resources.pids_limit) {
    const int64_t limit = *resources.pids_limit;
    settings.AddText("pids", "pids.max",
                     limit < 0 ? "max" : absl::StrCat(std::max<int64_t>(limit, 1)));
  }
  if (resources.block_io) AddBlockIo(*resources.block_io, settings);
  for (const oci::HugepageLimit& limit : resources.hugepages) {
    settings.AddText("hugetlb", absl::StrCat("hugetlb.", limit.page_size, ".limit_in_bytes"),
                     absl::StrCat(limit.limit));
    settings.AddText("hugetlb", absl::StrCat("hugetlb.", limit.page_size, ".rsvd.limit_in_bytes"),
                     absl::StrCat(limit.limit), true);
  }
  if (resources.network) {
    if (resources.network->class_id.value_or(0) != 0) {
      settings.Add("net_cls", "net_cls.classid", resources.network->class_id);
    }
    for (const auto& priority : resources.network->priorities) {
      settings.AddText("net_prio", "net_prio.ifpriomap",
                       absl::StrCat(priority.name, " ", priority.priority));
    }
  }
  for (const auto& [device, limit] : resources.rdma) {
    std::string line = device;
    if (limit.hca_handles) absl::StrAppend(&line, " hca_handle=", *limit.hca_handles);
    if (limit.hca_objects) absl::StrAppend(&line, " hca_object=", *limit.hca_objects);
    settings.AddText("rdma", "rdma.max", line);
  }
  return settings.Take();
}

std::vector<oci::DeviceRule> WithDefaultDevices(const std::vector<oci::DeviceRule>& rules) {
  if (rules.empty()) return {};
  std::vector<oci::DeviceRule> all;
  all.push_back({.allow = false, .type = "a", .access = "rwm"});
  const auto allow = [&](const char* type, std::optional<int64_t> major,
                         std::optional<int64_t> minor, const char* access) {
    all.push_back({.allow = true, .type = type, .major = major, .minor = minor, .access = access});
  };
  allow("c", {}, {}, "m");  // Making a node is harmless while opening it is denied.
  allow("b", {}, {}, "m");
  allow("c", 1, 3, "rwm");     // null
  allow("c", 1, 5, "rwm");     // zero
  allow("c", 1, 7, "rwm");     // full
  allow("c", 1, 8, "rwm");     // random
  allow("c", 1, 9, "rwm");     // urandom
  allow("c", 5, 0, "rwm");     // tty
  allow("c", 5, 2, "rwm");     // ptmx
  allow("c", 136, {}, "rwm");  // pts
  const auto is_deny_all = [](const oci::DeviceRule& rule) {
    return !rule.allow && (rule.type.empty() || rule.type == "a") && rule.major.value_or(-1) < 0 &&
           rule.minor.value_or(-1) < 0;
  };
  const auto same = [](const oci::DeviceRule& a, const oci::DeviceRule& b) {
    return a.allow == b.allow && a.type == b.type && a.major.value_or(-1) == b.major.value_or(-1) &&
           a.minor.value_or(-1) == b.minor.value_or(-1) && a.access == b.access;
  };
  size_t first = is_deny_all(rules[0]) ? 1 : 0;
  for (size_t i = first; i < rules.size(); ++i) {
    // Each line is a system call at every start, and callers like to repeat the defaults.
    const bool repeated =
        rules[i].allow &&
        std::any_of(all.begin(), all.end(), [&](const auto& rule) { return same(rule, rules[i]); });
    const bool denied_since =
        std::any_of(all.begin() + 1, all.end(), [](const auto& rule) { return !rule.allow; });
    if (!repeated || denied_since) all.push_back(rules[i]);
  }
  return all;
}

std::vector<DeviceLine> DeviceLinesV1(const std::vector<oci::DeviceRule>& rules) {
  std::vector<DeviceLine> lines;
  for (const oci::DeviceRule& rule : rules) {
    const std::string type = rule.type.empty() ? "a" : rule.type;
    const std::string access = rule.access.empty() ? "rwm" : rule.access;
    lines.push_back({rule.allow, absl::StrCat(type, " ", NumberOrStar(rule.major), ":",
                                              NumberOrStar(rule.minor), " ", access)});
    // For the kernel "a" means everything, whatever follows it.
    if (type == "a") lines.back().text = "a";
  }
  return lines;
}

}  // namespace gantry::cgroup
