#include "runtime/cli/stats_json.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"

namespace gantry::runtime {
namespace {

using cgroup::BlockIoEntry;
using cgroup::NamedValue;
using cgroup::ValueOf;

constexpr uint64_t kNanosecondsPerMicrosecond = 1000;

void WriteNamed(json::Writer& writer, const std::vector<NamedValue>& values) {
  writer.BeginObject();
  for (const NamedValue& value : values) writer.Member(value.name, value.value);
  writer.EndObject();
}

void WriteMemoryEntry(json::Writer& writer, const char* name, uint64_t limit, uint64_t usage,
                      uint64_t max, uint64_t failcnt) {
  writer.Key(name);
  writer.BeginObject();
  writer.Member("limit", limit);
  writer.Member("usage", usage);
  writer.Member("max", max);
  writer.Member("failcnt", failcnt);
  writer.EndObject();
}

void WriteThrottling(json::Writer& writer, uint64_t periods, uint64_t throttled, uint64_t time) {
  writer.Key("throttling");
  writer.BeginObject();
  writer.Member("periods", periods);
  writer.Member("throttledPeriods", throttled);
  writer.Member("throttledTime", time);
  writer.EndObject();
}

void WritePids(json::Writer& writer, uint64_t current, uint64_t limit) {
  writer.Key("pids");
  writer.BeginObject();
  writer.Member("current", current);
  writer.Member("limit", limit);
  writer.EndObject();
}

void WriteBlockIo(json::Writer& writer, const char* name,
                  const std::vector<BlockIoEntry>& entries) {
  if (entries.empty()) return;
  writer.Key(name);
  writer.BeginArray();
  for (const BlockIoEntry& entry : entries) {
    writer.BeginObject();
    writer.Member("major", entry.major);
    writer.Member("minor", entry.minor);
    writer.Member("op", entry.operation);
    writer.Member("value", entry.value);
    writer.EndObject();
  }
  writer.EndArray();
}

void WriteHugetlb(json::Writer& writer, const std::string& page_size, uint64_t usage, uint64_t max,
                  uint64_t failcnt) {
  writer.Key(page_size);
  writer.BeginObject();
  writer.Member("usage", usage);
  writer.Member("max", max);
  writer.Member("failcnt", failcnt);
  writer.EndObject();
}

void WriteCpuV1(json::Writer& writer, const cgroup::StatsV1& stats) {
  writer.Key("cpu");
  writer.BeginObject();
  writer.Key("usage");
  writer.BeginObject();
  writer.Member("total", stats.cpu_usage_total);
  writer.Member("percpu", stats.cpu_usage_percpu);
  writer.Member("kernel", stats.cpu_usage_kernel);
  writer.Member("user", stats.cpu_usage_user);
  writer.EndObject();
  WriteThrottling(writer, stats.throttling_periods, stats.throttled_periods, stats.throttled_time);
  writer.EndObject();
}

void WriteMemoryV1(json::Writer& writer, const cgroup::StatsV1& stats) {
  writer.Key("memory");
  writer.BeginObject();
  writer.Member("cache", ValueOf(stats.memory_stat, "cache"));
  const auto entry = [&](const char* name, const cgroup::StatsV1::MemoryEntry& values) {
    WriteMemoryEntry(writer, name, values.limit, values.usage, values.max, values.failcnt);
  };
  entry("usage", stats.memory);
  entry("swap", stats.memory_swap);
  entry("kernel", stats.kernel);
  entry("kernelTCP", stats.kernel_tcp);
  writer.Key("raw");
  WriteNamed(writer, stats.memory_stat);
  writer.EndObject();
}

void WriteBlockIoV1(json::Writer& writer, const cgroup::StatsV1& stats) {
  writer.Key("blkio");
  writer.BeginObject();
  WriteBlockIo(writer, "ioServiceBytesRecursive", stats.io_service_bytes_recursive);
  WriteBlockIo(writer, "ioServicedRecursive", stats.io_serviced_recursive);
  WriteBlockIo(writer, "ioQueueRecursive", stats.io_queued_recursive);
  WriteBlockIo(writer, "ioServiceTimeRecursive", stats.io_service_time_recursive);
  WriteBlockIo(writer, "ioWaitTimeRecursive", stats.io_wait_time_recursive);
  WriteBlockIo(writer, "ioMergedRecursive", stats.io_merged_recursive);
  WriteBlockIo(writer, "ioTimeRecursive", stats.io_time_recursive);
  WriteBlockIo(writer, "sectorsRecursive", stats.sectors_recursive);
  writer.EndObject();
}

void WriteCpuV2(json::Writer& writer, const cgroup::StatsV2& stats) {
  const auto nanoseconds = [&](const char* name) {
    return ValueOf(stats.cpu_stat, name) * kNanosecondsPerMicrosecond;
  };
  writer.Key("cpu");
  writer.BeginObject();
  writer.Key("usage");
  writer.BeginObject();
  writer.Member("total", nanoseconds("usage_usec"));
  writer.Member("kernel", nanoseconds("system_usec"));
  writer.Member("user", nanoseconds("user_usec"));
  writer.EndObject();
  WriteThrottling(writer, ValueOf(stats.cpu_stat, "nr_periods"),
                  ValueOf(stats.cpu_stat, "nr_throttled"), nanoseconds("throttled_usec"));
  WritePressure(stats.cpu_pressure, writer);
  writer.EndObject();
}

void WriteMemoryV2(json::Writer& writer, const cgroup::StatsV2& stats) {
  writer.Key("memory");
  writer.BeginObject();
  writer.Member("cache", ValueOf(stats.memory_stat, "file"));
  WriteMemoryEntry(writer, "usage", stats.memory_limit, stats.memory_usage, stats.memory_max_usage,
                   ValueOf(stats.memory_events, "max"));
  WriteMemoryEntry(writer, "swap", stats.swap_limit, stats.swap_usage, stats.swap_max_usage, 0);
  writer.Key("raw");
  WriteNamed(writer, stats.memory_stat);
  WritePressure(stats.memory_pressure, writer);
  writer.EndObject();
}

void WriteBlockIoV2(json::Writer& writer, const cgroup::StatsV2& stats) {
  std::vector<BlockIoEntry> bytes, operations;
  for (const cgroup::StatsV2::Io& io : stats.io) {
    bytes.push_back({io.major, io.minor, "Read", io.rbytes});
    bytes.push_back({io.major, io.minor, "Write", io.wbytes});
    operations.push_back({io.major, io.minor, "Read", io.rios});
    operations.push_back({io.major, io.minor, "Write", io.wios});
  }
  writer.Key("blkio");
  writer.BeginObject();
  WriteBlockIo(writer, "ioServiceBytesRecursive", bytes);
  WriteBlockIo(writer, "ioServicedRecursive", operations);
  WritePressure(stats.io_pressure, writer);
  writer.EndObject();
}

// A number of the kernel's as JSON takes it: digits and one point.
bool IsNumber(absl::string_view text) {
  return !text.empty() && absl::ascii_isdigit(static_cast<unsigned char>(text[0])) &&
         absl::ascii_isdigit(static_cast<unsigned char>(text.back())) &&
         text.find_first_not_of("0123456789.") == absl::string_view::npos &&
         text.find('.') == text.rfind('.');
}

}  // namespace

void WritePressure(absl::string_view text, json::Writer& writer) {
  if (text.empty()) return;
  writer.Key("psi");
  writer.BeginObject();
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (words.empty()) continue;
    writer.Key(words[0]);  // "some" or "full"
    writer.BeginObject();
    for (size_t i = 1; i < words.size(); ++i) {
      const std::pair<absl::string_view, absl::string_view> halves =
          absl::StrSplit(words[i], absl::MaxSplits('=', 1));
      if (!IsNumber(halves.second)) continue;
      writer.Key(halves.first);
      writer.WriteRaw(halves.second);
    }
    writer.EndObject();
  }
  writer.EndObject();
}

absl::Status WriteStatsV1(const cgroup::Cgroup& cgroup, json::Writer& writer) {
  ASSIGN_OR_RETURN(cgroup::StatsV1 stats, cgroup::ReadStatsV1(cgroup));
  WriteCpuV1(writer, stats);
  WriteMemoryV1(writer, stats);
  WritePids(writer, stats.pids_current, stats.pids_limit);
  WriteBlockIoV1(writer, stats);
  writer.Key("hugetlb");
  writer.BeginObject();
  for (const auto& size : stats.hugetlb) {
    WriteHugetlb(writer, size.page_size, size.usage, size.max, size.failcnt);
  }
  writer.EndObject();
  return absl::OkStatus();
}

absl::Status WriteStatsV2(const cgroup::Cgroup& cgroup, json::Writer& writer) {
  ASSIGN_OR_RETURN(cgroup::StatsV2 stats, cgroup::ReadStatsV2(cgroup));
  WriteCpuV2(writer, stats);
  WriteMemoryV2(writer, stats);
  WritePids(writer, stats.pids_current, stats.pids_limit);
  WriteBlockIoV2(writer, stats);
  writer.Key("hugetlb");
  writer.BeginObject();
  for (const auto& size : stats.hugetlb) {
    WriteHugetlb(writer, size.page_size, size.current, size.max, size.events_max);
  }
  writer.EndObject();
  return absl::OkStatus();
}

}  // namespace gantry::runtime
