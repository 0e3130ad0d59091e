// `events`: runc's JSON lines of statistics and out-of-memory kills.
#include <poll.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"
#include "runtime/cli/commands.h"

namespace gantry::runtime {
namespace {

void WriteNamed(json::Writer& writer, const std::vector<cgroup::NamedValue>& values) {
  writer.BeginObject();
  for (const cgroup::NamedValue& value : values) writer.Member(value.name, value.value);
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

absl::Status WriteV1(json::Writer& writer, const cgroup::Cgroup& cgroup) {
  ASSIGN_OR_RETURN(cgroup::StatsV1 stats, cgroup::ReadStatsV1(cgroup));
  writer.Key("cpu");
  writer.BeginObject();
  writer.Key("usage");
  writer.BeginObject();
  writer.Member("total", stats.cpu_usage_total);
  writer.Member("percpu", stats.cpu_usage_percpu);
  writer.Member("kernel", stats.cpu_usage_kernel);
  writer.Member("user", stats.cpu_usage_user);
  writer.EndObject();
  writer.Key("throttling");
  writer.BeginObject();
  writer.Member("periods", stats.throttling_periods);
  writer.Member("throttledPeriods", stats.throttled_periods);
  writer.Member("throttledTime", stats.throttled_time);
  writer.EndObject();
  writer.EndObject();
  writer.Key("memory");
  writer.BeginObject();
  const auto& memory = stats.memory;
  WriteMemoryEntry(writer, "usage", memory.limit, memory.usage, memory.max, memory.failcnt);
  const auto& swap = stats.memory_swap;
  WriteMemoryEntry(writer, "swap", swap.limit, swap.usage, swap.max, swap.failcnt);
  writer.Key("raw");
  WriteNamed(writer, stats.memory_stat);
  writer.EndObject();
  writer.Key("pids");
  writer.BeginObject();
  writer.Member("current", stats.pids_current);
  writer.Member("limit", stats.pids_limit);
  writer.EndObject();
  return absl::OkStatus();
}

absl::Status WriteV2(json::Writer& writer, const cgroup::Cgroup& cgroup) {
  ASSIGN_OR_RETURN(cgroup::StatsV2 stats, cgroup::ReadStatsV2(cgroup));
  constexpr uint64_t kNanosecondsPerMicrosecond = 1000;
  const auto nanoseconds = [&](const char* name) {
    return cgroup::ValueOf(stats.cpu_stat, name) * kNanosecondsPerMicrosecond;
  };
  writer.Key("cpu");
  writer.BeginObject();
  writer.Key("usage");
  writer.BeginObject();
  writer.Member("total", nanoseconds("usage_usec"));
  writer.Member("kernel", nanoseconds("system_usec"));
  writer.Member("user", nanoseconds("user_usec"));
  writer.EndObject();
  writer.Key("throttling");
  writer.BeginObject();
  writer.Member("periods", cgroup::ValueOf(stats.cpu_stat, "nr_periods"));
  writer.Member("throttledPeriods", cgroup::ValueOf(stats.cpu_stat, "nr_throttled"));
  writer.Member("throttledTime", nanoseconds("throttled_usec"));
  writer.EndObject();
  writer.Member("psi", stats.cpu_pressure);
  writer.EndObject();
  writer.Key("memory");
  writer.BeginObject();
  WriteMemoryEntry(writer, "usage", stats.memory_limit, stats.memory_usage, stats.memory_max_usage,
                   cgroup::ValueOf(stats.memory_events, "max"));
  WriteMemoryEntry(writer, "swap", stats.swap_limit, stats.swap_usage, stats.swap_max_usage, 0);
  writer.Key("raw");
  WriteNamed(writer, stats.memory_stat);
  writer.Member("psi", stats.memory_pressure);
  writer.EndObject();
  writer.Key("pids");
  writer.BeginObject();
  writer.Member("current", stats.pids_current);
  writer.Member("limit", stats.pids_limit);
  writer.EndObject();
  return absl::OkStatus();
}

absl::Status PrintStats(const Container& container) {
  json::Writer writer;
  writer.BeginObject();
  writer.Member("type", "stats");
  writer.Member("id", container.id());
  writer.Key("data");
  writer.BeginObject();
  RETURN_IF_ERROR(container.cgroup().mode() == cgroup::Mode::kV2
                      ? WriteV2(writer, container.cgroup())
                      : WriteV1(writer, container.cgroup()));
  writer.EndObject();
  writer.EndObject();
  return Print(writer.Take() + "\n");
}

}  // namespace

absl::StatusOr<int> RunEvents(const Global& global, const Arguments& arguments) {
  absl::Duration interval = absl::Seconds(5);
  if (arguments.Has("interval") && (!absl::ParseDuration(arguments.Value("interval"), &interval) ||
                                    interval < absl::Milliseconds(1))) {
    return absl::InvalidArgumentError(absl::StrCat("--interval: '",
                                                   EscapeForTerminal(arguments.Value("interval")),
                                                   "' is not a time such as 5s"));
  }
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[0]));
  ASSIGN_OR_RETURN(Status status, container.GetStatus());
  if (status == Status::kStopped) {
    return absl::FailedPreconditionError(
        absl::StrCat("container with id ", container.id(), " is not running"));
  }
  if (arguments.IsSet("stats")) {
    RETURN_IF_ERROR(PrintStats(container));
    return 0;
  }
  absl::StatusOr<cgroup::OomWatch> oom = cgroup::OomWatch::Open(container.cgroup());
  absl::Time next = absl::Now() + interval;
  for (;;) {
    pollfd polls[] = {{container.pidfd().get(), POLLIN, 0},
                      {oom.ok() && !oom->gone() ? oom->fd() : -1, POLLIN, 0}};
    const int64_t left = absl::ToInt64Milliseconds(next - absl::Now());
    const int ready = ::poll(polls, 2, static_cast<int>(std::max<int64_t>(left, 0)));
    if (polls[1].revents != 0 && oom->Drain() > 0) {
      json::Writer writer;
      writer.BeginObject();
      writer.Member("type", "oom");
      writer.Member("id", container.id());
      writer.EndObject();
      RETURN_IF_ERROR(Print(writer.Take() + "\n"));
    }
    if (polls[0].revents != 0) return 0;
    if (ready != 0) continue;
    RETURN_IF_ERROR(PrintStats(container));
    next += interval;
  }
}

}  // namespace gantry::runtime
