#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/cgroup/cgroup.h"
#include "lib/cgroup/control_file.h"
#include "lib/sys/file.h"

namespace gantry::cgroup {
namespace {

std::string ReadText(const std::string& directory, absl::string_view file) {
  if (directory.empty()) return "";
  absl::StatusOr<std::string> text = ReadControl(directory, file);
  return text.ok() ? *text : "";
}

bool ParseDevice(absl::string_view text, uint64_t* major, uint64_t* minor) {
  const std::pair<absl::string_view, absl::string_view> halves =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  return absl::SimpleAtoi(halves.first, major) && absl::SimpleAtoi(halves.second, minor);
}

// "8:0 Read 4096" or "8:0 12"; the "Total" lines have no device.
std::vector<BlockIoEntry> ReadBlockIo(const std::string& directory, absl::string_view file) {
  std::vector<BlockIoEntry> entries;
  const std::string text = ReadText(directory, file);
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ', absl::SkipEmpty());
    BlockIoEntry entry;
    if (fields.size() < 2 || !ParseDevice(fields[0], &entry.major, &entry.minor)) continue;
    if (!absl::SimpleAtoi(fields.back(), &entry.value)) continue;
    if (fields.size() > 2) entry.operation = std::string(fields[1]);
    entries.push_back(std::move(entry));
  }
  return entries;
}

StatsV1::MemoryEntry ReadMemoryEntry(const std::string& directory, absl::string_view prefix) {
  if (directory.empty()) return {};
  return {ReadNumber(directory, absl::StrCat(prefix, ".limit_in_bytes")),
          ReadNumber(directory, absl::StrCat(prefix, ".usage_in_bytes")),
          ReadNumber(directory, absl::StrCat(prefix, ".max_usage_in_bytes")),
          ReadNumber(directory, absl::StrCat(prefix, ".failcnt"))};
}

uint64_t ZeroForMax(uint64_t limit) { return limit == kNoLimit ? 0 : limit; }

// Page sizes for which `directory` has "hugetlb.<size><suffix>".
std::vector<std::string> PageSizes(const std::string& directory, absl::string_view suffix) {
  std::vector<std::string> sizes;
  if (directory.empty()) return sizes;
  absl::StatusOr<std::vector<std::string>> names = sys::ListDirectory(directory);
  if (!names.ok()) return sizes;
  for (absl::string_view name : *names) {
    if (absl::ConsumePrefix(&name, "hugetlb.") && absl::ConsumeSuffix(&name, suffix) &&
        !absl::StrContains(name, '.')) {
      sizes.emplace_back(name);
    }
  }
  return sizes;
}

void ReadCpuV1(const Cgroup& cgroup, StatsV1& stats) {
  constexpr uint64_t kNanosecondsPerTick = 10000000;  // USER_HZ is 100 on every Linux ABI of ours.
  const std::string account = cgroup.DirectoryOf("cpuacct");
  if (!account.empty()) {
    stats.cpu_usage_total = ReadNumber(account, "cpuacct.usage");
    const std::string percpu = ReadText(account, "cpuacct.usage_percpu");
    for (absl::string_view word : absl::StrSplit(percpu, ' ', absl::SkipEmpty())) {
      uint64_t value = 0;
      if (absl::SimpleAtoi(word, &value)) stats.cpu_usage_percpu.push_back(value);
    }
    const std::vector<NamedValue> split = ReadNamed(account, "cpuacct.stat");
    stats.cpu_usage_user = ValueOf(split, "user") * kNanosecondsPerTick;
    stats.cpu_usage_kernel = ValueOf(split, "system") * kNanosecondsPerTick;
  }
  const std::string cpu = cgroup.DirectoryOf("cpu");
  if (cpu.empty()) return;
  const std::vector<NamedValue> throttling = ReadNamed(cpu, "cpu.stat");
  stats.throttling_periods = ValueOf(throttling, "nr_periods");
  stats.throttled_periods = ValueOf(throttling, "nr_throttled");
  stats.throttled_time = ValueOf(throttling, "throttled_time");
}

void ReadBlockIoV1(const std::string& directory, StatsV1& stats) {
  if (directory.empty()) return;
  // With BFQ its own recursive files count; without, those of the throttling layer.
  const bool bfq = sys::Exists(absl::StrCat(directory, "/blkio.bfq.io_serviced_recursive"));
  const std::string prefix = bfq ? "blkio.bfq." : "blkio.throttle.";
  stats.io_service_bytes_recursive =
      ReadBlockIo(directory, absl::StrCat(prefix, "io_service_bytes_recursive"));
  stats.io_serviced_recursive =
      ReadBlockIo(directory, absl::StrCat(prefix, "io_serviced_recursive"));
  if (!bfq) return;
  stats.io_queued_recursive = ReadBlockIo(directory, "blkio.bfq.io_queued_recursive");
  stats.io_service_time_recursive = ReadBlockIo(directory, "blkio.bfq.io_service_time_recursive");
  stats.io_wait_time_recursive = ReadBlockIo(directory, "blkio.bfq.io_wait_time_recursive");
  stats.io_merged_recursive = ReadBlockIo(directory, "blkio.bfq.io_merged_recursive");
  stats.io_time_recursive = ReadBlockIo(directory, "blkio.bfq.time_recursive");
  stats.sectors_recursive = ReadBlockIo(directory, "blkio.bfq.sectors_recursive");
}

}  // namespace

uint64_t ValueOf(const std::vector<NamedValue>& values, absl::string_view name) {
  auto found = std::find_if(values.begin(), values.end(),
                            [&](const NamedValue& value) { return value.name == name; });
  return found == values.end() ? 0 : found->value;
}

absl::StatusOr<StatsV1> ReadStatsV1(const Cgroup& cgroup) {
  if (!cgroup.Exists()) return absl::NotFoundError("the container's cgroup is gone");
  StatsV1 stats;
  if (const std::string pids = cgroup.DirectoryOf("pids"); !pids.empty()) {
    stats.pids_current = ReadNumber(pids, "pids.current");
    stats.pids_limit = ZeroForMax(ReadNumber(pids, "pids.max"));
  }
  ReadCpuV1(cgroup, stats);
  if (const std::string memory = cgroup.DirectoryOf("memory"); !memory.empty()) {
    stats.memory_stat = ReadNamed(memory, "memory.stat");
    stats.memory = ReadMemoryEntry(memory, "memory");
    stats.memory_swap = ReadMemoryEntry(memory, "memory.memsw");
    stats.kernel = ReadMemoryEntry(memory, "memory.kmem");
    stats.kernel_tcp = ReadMemoryEntry(memory, "memory.kmem.tcp");
    const std::vector<NamedValue> oom = ReadNamed(memory, "memory.oom_control");
    stats.oom_kill_disable = ValueOf(oom, "oom_kill_disable");
    stats.under_oom = ValueOf(oom, "under_oom");
    stats.oom_kill = ValueOf(oom, "oom_kill");
  }
  ReadBlockIoV1(cgroup.DirectoryOf("blkio"), stats);
  const std::string huge = cgroup.DirectoryOf("hugetlb");
  for (const std::string& size : PageSizes(huge, ".usage_in_bytes")) {
    const std::string prefix = absl::StrCat("hugetlb.", size);
    stats.hugetlb.push_back({size, ReadNumber(huge, absl::StrCat(prefix, ".usage_in_bytes")),
                             ReadNumber(huge, absl::StrCat(prefix, ".max_usage_in_bytes")),
                             ReadNumber(huge, absl::StrCat(prefix, ".failcnt"))});
  }
  return stats;
}

absl::StatusOr<StatsV2> ReadStatsV2(const Cgroup& cgroup) {
  const std::string directory = cgroup.DirectoryOf("");
  std::string path = directory;
  for (const Directory& candidate : cgroup.directories()) {
    if (candidate.unified()) path = candidate.path;
  }
  if (path.empty() || !sys::Exists(path)) {
    return absl::NotFoundError("the container's cgroup is gone");
  }
  StatsV2 stats;
  stats.pids_current = ReadNumber(path, "pids.current");
  stats.pids_limit = ZeroForMax(ReadNumber(path, "pids.max"));
  stats.cpu_stat = ReadNamed(path, "cpu.stat");
  stats.memory_stat = ReadNamed(path, "memory.stat");
  stats.memory_usage = ReadNumber(path, "memory.current");
  stats.memory_limit = ReadNumber(path, "memory.max");
  stats.memory_max_usage = ReadNumber(path, "memory.peak");
  stats.swap_usage = ReadNumber(path, "memory.swap.current");
  stats.swap_limit = ReadNumber(path, "memory.swap.max");
  stats.swap_max_usage = ReadNumber(path, "memory.swap.peak");
  stats.memory_events = ReadNamed(path, "memory.events");
  const std::string io = ReadText(path, "io.stat");
  for (absl::string_view line : absl::StrSplit(io, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ', absl::SkipEmpty());
    StatsV2::Io entry;
    if (fields.empty() || !ParseDevice(fields[0], &entry.major, &entry.minor)) continue;
    const std::pair<absl::string_view, uint64_t*> members[] = {
        {"rbytes=", &entry.rbytes}, {"wbytes=", &entry.wbytes}, {"rios=", &entry.rios},
        {"wios=", &entry.wios},     {"dbytes=", &entry.dbytes}, {"dios=", &entry.dios}};
    for (absl::string_view field : fields) {
      for (const auto& [key, member] : members) {
        absl::string_view value = field;
        if (absl::ConsumePrefix(&value, key)) (void)absl::SimpleAtoi(value, member);
      }
    }
    stats.io.push_back(entry);
  }
  for (const std::string& size : PageSizes(path, ".current")) {
    const std::string prefix = absl::StrCat("hugetlb.", size);
    stats.hugetlb.push_back({size, ReadNumber(path, absl::StrCat(prefix, ".current")),
                             ReadNumber(path, absl::StrCat(prefix, ".max")),
                             ValueOf(ReadNamed(path, absl::StrCat(prefix, ".events")), "max")});
  }
  stats.cpu_pressure = ReadText(path, "cpu.pressure");
  stats.memory_pressure = ReadText(path, "memory.pressure");
  stats.io_pressure = ReadText(path, "io.pressure");
  return stats;
}

}  // namespace gantry::cgroup
