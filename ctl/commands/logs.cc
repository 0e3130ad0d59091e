// logs: what a container wrote, on the streams it wrote it to.

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ctl/commands/commands.h"
#include "ctl/flag_values.h"
#include "ctl/names.h"
#include "gantry/engine/v1/engine.pb.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

namespace engine = ::gantry::engine::v1;

absl::Status SetMoment(const Arguments& arguments, absl::string_view flag,
                       google::protobuf::Timestamp* (engine::LogsRequest::*mutable_time)(),
                       engine::LogsRequest* request) {
  if (!arguments.Has(flag)) return absl::OkStatus();
  ASSIGN_OR_RETURN(absl::Time time, ParseMoment(arguments.Text(flag), absl::Now()));
  google::protobuf::Timestamp* timestamp = (request->*mutable_time)();
  const int64_t seconds = absl::ToUnixSeconds(time);
  timestamp->set_seconds(seconds);
  timestamp->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
  return absl::OkStatus();
}

absl::StatusOr<engine::LogsRequest> BuildRequest(const Arguments& arguments) {
  engine::LogsRequest request;
  request.set_container(arguments.positional()[0]);
  request.set_follow(arguments.Is("follow"));
  request.set_want_stdout(true);
  request.set_want_stderr(true);
  request.set_tail(-1);
  const std::string tail = arguments.Text("tail", "all");
  int64_t lines = 0;
  // As Docker: a negative number means all.
  if (tail != "all" && !absl::SimpleAtoi(tail, &lines)) {
    return absl::InvalidArgumentError(absl::StrCat("invalid value '", EscapeForTerminal(tail),
                                                   "' of --tail: use a number or all"));
  }
  if (tail != "all") request.set_tail(lines < 0 ? -1 : lines);
  RETURN_IF_ERROR(SetMoment(arguments, "since", &engine::LogsRequest::mutable_since, &request));
  RETURN_IF_ERROR(SetMoment(arguments, "until", &engine::LogsRequest::mutable_until, &request));
  return request;
}

// Prints entries until the end of the stream.
absl::Status PrintEntries(Context& context, const Arguments& arguments,
                          const engine::LogsRequest& request) {
  ASSIGN_OR_RETURN(Stream stream,
                   context.suite().Open("engine", "/gantry.engine.v1.Containers/Logs", &request));
  engine::LogEntry entry;
  // A long line comes in several entries; only its first gets a time.
  bool at_line_start[2] = {true, true};
  while (true) {
    entry.Clear();
    ASSIGN_OR_RETURN(bool more, stream.call->Read(&entry));
    if (!more) return absl::OkStatus();
    const bool to_stderr = entry.stream() == engine::LogEntry::STDERR;
    Output& output = to_stderr ? context.err() : context.out();
    if (arguments.Is("timestamps") && at_line_start[to_stderr]) {
      output.Write(absl::StrCat(FormatRfc3339Nano(ToTime(entry.time())), " "));
    }
    output.Write(entry.data());
    at_line_start[to_stderr] = absl::EndsWith(entry.data(), "\n");
    // On one terminal the streams must keep their order, and whoever follows wants it now.
    if (request.follow() || context.out().IsTerminal()) output.Flush();
  }
}

int Logs(Context& context, const Arguments& arguments) {
  const std::string attempt =
      absl::StrCat("cannot show logs of \"", arguments.positional()[0], "\"");
  absl::StatusOr<engine::LogsRequest> request = BuildRequest(arguments);
  if (!request.ok()) return context.Fail(attempt, request.status());
  const absl::Status status = PrintEntries(context, arguments, *request);
  return status.ok() ? kExitOk : context.Fail(attempt, status);
}

constexpr FlagSpec kLogsFlags[] = {
    {"details", 0, FlagKind::kSwitch, "", ""},
    {"follow", 'f', FlagKind::kSwitch, "", "Go on with what comes, until the container stops"},
    {"since", 0, FlagKind::kText, "time", "Only later lines: RFC 3339, seconds, or an age (42m)"},
    {"tail", 'n', FlagKind::kText, "number", "Only the last lines (default all)"},
    {"timestamps", 't', FlagKind::kSwitch, "", "Show the time of every line"},
    {"until", 0, FlagKind::kText, "time", "Only earlier lines"},
};

}  // namespace

absl::Span<const CommandSpec> LogCommands() {
  static const CommandSpec kCommands[] = {
      {"logs", "[OPTIONS] CONTAINER", "Show what a container wrote", kLogsFlags, 1, 1, false,
       "gantryctl logs -f -n 20 web\n"
       "gantryctl logs --since 10m web",
       Logs},
  };
  return kCommands;
}

}  // namespace gantry::ctl
