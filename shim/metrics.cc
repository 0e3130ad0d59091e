#include "shim/metrics.h"

#include <stdlib.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"

namespace gantry::shim {
namespace {

struct NamedField {
  const char* name;
  uint32_t field;
};

constexpr NamedField kMemoryV1[] = {{"cache", 1},
                                    {"rss", 2},
                                    {"rss_huge", 3},
                                    {"mapped_file", 4},
                                    {"dirty", 5},
                                    {"writeback", 6},
                                    {"pgpgin", 7},
                                    {"pgpgout", 8},
                                    {"pgfault", 9},
                                    {"pgmajfault", 10},
                                    {"inactive_anon", 11},
                                    {"active_anon", 12},
                                    {"inactive_file", 13},
                                    {"active_file", 14},
                                    {"unevictable", 15},
                                    {"hierarchical_memory_limit", 16},
                                    {"hierarchical_memsw_limit", 17},
                                    {"total_cache", 18},
                                    {"total_rss", 19},
                                    {"total_rss_huge", 20},
                                    {"total_mapped_file", 21},
                                    {"total_dirty", 22},
                                    {"total_writeback", 23},
                                    {"total_pgpgin", 24},
                                    {"total_pgpgout", 25},
                                    {"total_pgfault", 26},
                                    {"total_pgmajfault", 27},
                                    {"total_inactive_anon", 28},
                                    {"total_active_anon", 29},
                                    {"total_inactive_file", 30},
                                    {"total_active_file", 31},
                                    {"total_unevictable", 32}};

constexpr NamedField kCpuV2[] = {{"usage_usec", 1}, {"user_usec", 2},    {"system_usec", 3},
                                 {"nr_periods", 4}, {"nr_throttled", 5}, {"throttled_usec", 6},
                                 {"nr_bursts", 8},  {"burst_usec", 9}};

constexpr NamedField kMemoryV2[] = {{"anon", 1},
                                    {"file", 2},
                                    {"kernel_stack", 3},
                                    {"slab", 4},
                                    {"sock", 5},
                                    {"shmem", 6},
                                    {"file_mapped", 7},
                                    {"file_dirty", 8},
                                    {"file_writeback", 9},
                                    {"anon_thp", 10},
                                    {"inactive_anon", 11},
                                    {"active_anon", 12},
                                    {"inactive_file", 13},
                                    {"active_file", 14},
                                    {"unevictable", 15},
                                    {"slab_reclaimable", 16},
                                    {"slab_unreclaimable", 17},
                                    {"pgfault", 18},
                                    {"pgmajfault", 19},
                                    {"workingset_refault", 20},
                                    {"workingset_activate", 21},
                                    {"workingset_nodereclaim", 22},
                                    {"pgrefill", 23},
                                    {"pgscan", 24},
                                    {"pgsteal", 25},
                                    {"pgactivate", 26},
                                    {"pgdeactivate", 27},
                                    {"pglazyfree", 28},
                                    {"pglazyfreed", 29},
                                    {"thp_fault_alloc", 30},
                                    {"thp_collapse_alloc", 31}};

constexpr NamedField kMemoryEvents[] = {{"low", 1}, {"high", 2},     {"max", 3},
                                        {"oom", 4}, {"oom_kill", 5}, {"oom_group_kill", 6}};

template <size_t N>
void WriteNamed(pb::Writer& writer, const NamedField (&fields)[N],
                const std::vector<cgroup::NamedValue>& values) {
  for (const NamedField& field : fields) {
    writer.Varint(field.field, cgroup::ValueOf(values, field.name));
  }
}

void WriteBlockIo(pb::Writer& writer, uint32_t field,
                  const std::vector<cgroup::BlockIoEntry>& entries) {
  for (const cgroup::BlockIoEntry& entry : entries) {
    writer.Message(field, [&](pb::Writer& inner) {
      inner.String(1, entry.operation);
      inner.Varint(3, entry.major);
      inner.Varint(4, entry.minor);
      inner.Varint(5, entry.value);
    });
  }
}

void WriteMemoryEntry(pb::Writer& writer, uint32_t field,
                      const cgroup::StatsV1::MemoryEntry& entry) {
  writer.Message(field, [&](pb::Writer& inner) {
    inner.Varint(1, entry.limit);
    inner.Varint(2, entry.usage);
    inner.Varint(3, entry.max);
    inner.Varint(4, entry.failcnt);
  });
}

// "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", and a line that begins with "full".
void WritePressure(pb::Writer& writer, uint32_t field, absl::string_view text) {
  if (text.empty()) return;
  writer.Message(field, [&](pb::Writer& pressure) {
    for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
      const uint32_t kind = words.empty() ? 0 : words[0] == "some" ? 1 : words[0] == "full" ? 2 : 0;
      if (kind == 0) continue;
      pressure.Message(kind, [&](pb::Writer& data) {
        for (absl::string_view word : words) {
          const std::pair<std::string, std::string> pair =
              absl::StrSplit(word, absl::MaxSplits('=', 1));
          double average = 0;
          uint64_t total = 0;
          if (pair.first == "avg10" && absl::SimpleAtod(pair.second, &average))
            data.Double(1, average);
          if (pair.first == "avg60" && absl::SimpleAtod(pair.second, &average))
            data.Double(2, average);
          if (pair.first == "avg300" && absl::SimpleAtod(pair.second, &average))
            data.Double(3, average);
          if (pair.first == "total" && absl::SimpleAtoi(pair.second, &total)) data.Varint(4, total);
        }
      });
    }
  });
}

}  // namespace

std::string WriteMetricsV1(const cgroup::StatsV1& stats) {
  std::string bytes;
  pb::Writer metrics(&bytes);
  for (const cgroup::StatsV1::Hugetlb& page : stats.hugetlb) {
    metrics.Message(1, [&](pb::Writer& inner) {
      inner.Varint(1, page.usage);
      inner.Varint(2, page.max);
      inner.Varint(3, page.failcnt);
      inner.String(4, page.page_size);
    });
  }
  metrics.Message(2, [&](pb::Writer& pids) {
    pids.Varint(1, stats.pids_current);
    pids.Varint(2, stats.pids_limit);
  });
  metrics.Message(3, [&](pb::Writer& cpu) {
    cpu.Message(1, [&](pb::Writer& usage) {
      usage.Varint(1, stats.cpu_usage_total);
      usage.Varint(2, stats.cpu_usage_kernel);
      usage.Varint(3, stats.cpu_usage_user);
      // A packed repeated field: varints one after the other.
      std::string packed;
      for (uint64_t value : stats.cpu_usage_percpu) {
        for (; value >= 0x80; value >>= 7) packed.push_back(static_cast<char>(value | 0x80));
        packed.push_back(static_cast<char>(value));
      }
      usage.String(4, packed);
    });
    cpu.Message(2, [&](pb::Writer& throttle) {
      throttle.Varint(1, stats.throttling_periods);
      throttle.Varint(2, stats.throttled_periods);
      throttle.Varint(3, stats.throttled_time);
    });
  });
  metrics.Message(4, [&](pb::Writer& memory) {
    WriteNamed(memory, kMemoryV1, stats.memory_stat);
    WriteMemoryEntry(memory, 33, stats.memory);
    WriteMemoryEntry(memory, 34, stats.memory_swap);
    WriteMemoryEntry(memory, 35, stats.kernel);
    WriteMemoryEntry(memory, 36, stats.kernel_tcp);
  });
  metrics.Message(5, [&](pb::Writer& io) {
    WriteBlockIo(io, 1, stats.io_service_bytes_recursive);
    WriteBlockIo(io, 2, stats.io_serviced_recursive);
    WriteBlockIo(io, 3, stats.io_queued_recursive);
    WriteBlockIo(io, 4, stats.io_service_time_recursive);
    WriteBlockIo(io, 5, stats.io_wait_time_recursive);
    WriteBlockIo(io, 6, stats.io_merged_recursive);
    WriteBlockIo(io, 7, stats.io_time_recursive);
    WriteBlockIo(io, 8, stats.sectors_recursive);
  });
  metrics.Message(9, [&](pb::Writer& oom) {
    oom.Varint(1, stats.oom_kill_disable);
    oom.Varint(2, stats.under_oom);
    oom.Varint(3, stats.oom_kill);
  });
  return bytes;
}

std::string WriteMetricsV2(const cgroup::StatsV2& stats) {
  std::string bytes;
  pb::Writer metrics(&bytes);
  metrics.Message(1, [&](pb::Writer& pids) {
    pids.Varint(1, stats.pids_current);
    pids.Varint(2, stats.pids_limit);
  });
  metrics.Message(2, [&](pb::Writer& cpu) {
    WriteNamed(cpu, kCpuV2, stats.cpu_stat);
    WritePressure(cpu, 7, stats.cpu_pressure);
  });
  metrics.Message(4, [&](pb::Writer& memory) {
    WriteNamed(memory, kMemoryV2, stats.memory_stat);
    memory.Varint(32, stats.memory_usage);
    memory.Varint(33, stats.memory_limit);
    memory.Varint(34, stats.swap_usage);
    memory.Varint(35, stats.swap_limit);
    memory.Varint(36, stats.memory_max_usage);
    memory.Varint(37, stats.swap_max_usage);
    WritePressure(memory, 38, stats.memory_pressure);
  });
  metrics.Message(6, [&](pb::Writer& io) {
    for (const cgroup::StatsV2::Io& device : stats.io) {
      io.Message(1, [&](pb::Writer& entry) {
        entry.Varint(1, device.major);
        entry.Varint(2, device.minor);
        entry.Varint(3, device.rbytes);
        entry.Varint(4, device.wbytes);
        entry.Varint(5, device.rios);
        entry.Varint(6, device.wios);
      });
    }
    WritePressure(io, 2, stats.io_pressure);
  });
  for (const cgroup::StatsV2::Hugetlb& page : stats.hugetlb) {
    metrics.Message(7, [&](pb::Writer& inner) {
      inner.Varint(1, page.current);
      inner.Varint(2, page.max);
      inner.String(3, page.page_size);
      inner.Varint(4, page.events_max);
    });
  }
  metrics.Message(
      8, [&](pb::Writer& events) { WriteNamed(events, kMemoryEvents, stats.memory_events); });
  return bytes;
}

absl::StatusOr<Any> ReadMetrics(const cgroup::Cgroup& cgroup) {
  if (cgroup.mode() == cgroup::Mode::kV2) {
    ASSIGN_OR_RETURN(const cgroup::StatsV2 stats, cgroup::ReadStatsV2(cgroup));
    return Any{"io.containerd.cgroups.v2.Metrics", WriteMetricsV2(stats)};
  }
  ASSIGN_OR_RETURN(const cgroup::StatsV1 stats, cgroup::ReadStatsV1(cgroup));
  return Any{"io.containerd.cgroups.v1.Metrics", WriteMetricsV1(stats)};
}

}  // namespace gantry::shim
