// `events`: runc's JSON lines of statistics and out-of-memory kills.
#include <poll.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/stats_json.h"

namespace gantry::runtime {
namespace {

absl::Status PrintStats(const Container& container) {
  json::Writer writer;
  writer.BeginObject();
  writer.Member("type", "stats");
  writer.Member("id", container.id());
  writer.Key("data");
  writer.BeginObject();
  RETURN_IF_ERROR(container.cgroup().mode() == cgroup::Mode::kV2
                      ? WriteStatsV2(container.cgroup(), writer)
                      : WriteStatsV1(container.cgroup(), writer));
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
