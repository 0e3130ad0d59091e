// state, list, ps, spec.
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/process.h"
#include "runtime/cli/commands.h"

namespace gantry::runtime {
namespace {

absl::Status UnknownFormat(absl::string_view format) {
  return absl::InvalidArgumentError(
      absl::StrCat("--format: ", Quote(format), " is neither table nor json"));
}

std::string StatesTable(const std::vector<State>& states) {
  std::string out;
  size_t width = 2;
  for (const State& state : states) width = std::max(width, state.id.size());
  const auto row = [&](absl::string_view id, absl::string_view pid, absl::string_view status,
                       absl::string_view bundle, absl::string_view created,
                       absl::string_view owner) {
    absl::StrAppendFormat(&out, "%-*s  %-9s  %-9s  %s  %s  %s\n", static_cast<int>(width), id, pid,
                          status, bundle, created, owner);
  };
  row("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER");
  for (const State& state : states) {
    row(state.id, absl::StrCat(state.pid), StatusName(state.status),
        EscapeForTerminal(state.bundle), FormatRfc3339Nano(state.created), state.owner);
  }
  return out;
}

std::string StatesJson(const std::vector<State>& states) {
  json::Writer writer;
  writer.BeginArray();
  for (const State& state : states) writer.WriteRaw(WriteState(state));
  writer.EndArray();
  return writer.Take() + "\n";
}

// The host's ps(1), and of its output the lines of our processes.
absl::Status PrintPsTable(const std::vector<pid_t>& pids, const std::vector<std::string>& words) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return sys::ErrnoError(errno, "make a pipe");
  sys::UniqueFd reader(ends[0]), writer(ends[1]);
  sys::SpawnOptions options;
  options.program = sys::Exists("/bin/ps") ? "/bin/ps" : "/usr/bin/ps";
  options.argv = {"ps"};
  if (words.empty()) options.argv.push_back("-ef");
  options.argv.insert(options.argv.end(), words.begin(), words.end());
  options.environment = {"PATH=/usr/bin:/bin"};
  options.descriptors = {{writer.get(), 1}, {2, 2}};
  ASSIGN_OR_RETURN(sys::Child child, sys::Spawn(options));
  writer.Reset();
  ASSIGN_OR_RETURN(std::string text, sys::ReadAll(reader));
  ASSIGN_OR_RETURN(sys::ExitStatus status, child.Wait());
  if (status.code != 0) return absl::InternalError(absl::StrCat("ps ended with ", status.code));
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  if (lines.empty()) return absl::InternalError("ps printed nothing");
  const std::vector<absl::string_view> titles = absl::StrSplit(lines[0], ' ', absl::SkipEmpty());
  const auto column = std::find(titles.begin(), titles.end(), "PID") - titles.begin();
  std::string out = absl::StrCat(lines[0], "\n");
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::vector<absl::string_view> fields = absl::StrSplit(lines[i], ' ', absl::SkipEmpty());
    pid_t pid = 0;
    if (static_cast<size_t>(column) < fields.size() && absl::SimpleAtoi(fields[column], &pid) &&
        std::binary_search(pids.begin(), pids.end(), pid)) {
      absl::StrAppend(&out, lines[i], "\n");
    }
  }
  return Print(out);
}

}  // namespace

absl::StatusOr<int> RunState(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[0]));
  ASSIGN_OR_RETURN(State state, container.GetState());
  RETURN_IF_ERROR(Print(json::Indent(WriteState(state)) + "\n"));
  return 0;
}

absl::StatusOr<int> RunList(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(std::vector<std::string> ids, ListContainers(global.root));
  std::vector<State> states;
  for (const std::string& id : ids) {
    absl::StatusOr<Container> container = Container::Load(global.root, id);
    if (absl::IsNotFound(container.status())) continue;  // Deleted since.
    RETURN_IF_ERROR(container.status());
    ASSIGN_OR_RETURN(State state, container->GetState());
    states.push_back(std::move(state));
  }
  const std::string format = arguments.Has("format") ? arguments.Value("format") : "table";
  std::string out;
  if (arguments.IsSet("quiet")) {
    for (const State& state : states) absl::StrAppend(&out, state.id, "\n");
  } else if (format == "json") {
    out = StatesJson(states);
  } else if (format == "table") {
    out = StatesTable(states);
  } else {
    return UnknownFormat(format);
  }
  RETURN_IF_ERROR(Print(out));
  return 0;
}

absl::StatusOr<int> RunPs(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[0]));
  ASSIGN_OR_RETURN(std::vector<pid_t> pids, container.Pids());
  const std::string format = arguments.Has("format") ? arguments.Value("format") : "table";
  if (format == "json") {
    json::Writer writer;
    writer.BeginArray();
    for (pid_t pid : pids) writer.Write(static_cast<int32_t>(pid));
    writer.EndArray();
    RETURN_IF_ERROR(Print(writer.Take() + "\n"));
    return 0;
  }
  if (format != "table") {
    return UnknownFormat(format);
  }
  RETURN_IF_ERROR(PrintPsTable(pids, std::vector<std::string>(arguments.operands().begin() + 1,
                                                              arguments.operands().end())));
  return 0;
}

absl::StatusOr<int> RunSpec(const Global& global, const Arguments& arguments) {
  const std::string directory = arguments.Has("bundle") ? arguments.Value("bundle") : ".";
  const std::string path = absl::StrCat(
      directory, "/", arguments.Has("config") ? arguments.Value("config") : "config.json");
  if (sys::Exists(path)) {
    return absl::AlreadyExistsError(absl::StrCat("file ", path, " exists; remove it first"));
  }
  const bool rootless = arguments.IsSet("rootless");
  oci::Spec spec = oci::ExampleSpec(rootless);
  if (rootless) {
    spec.linux_.uid_mappings = {{.container_id = 0, .host_id = ::geteuid(), .size = 1}};
    spec.linux_.gid_mappings = {{.container_id = 0, .host_id = ::getegid(), .size = 1}};
  }
  RETURN_IF_ERROR(sys::WriteFileAtomically(path, json::Indent(oci::WriteSpec(spec)) + "\n", 0666));
  return 0;
}

}  // namespace gantry::runtime
