#include "runtime/cli/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <regex.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
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
#include "runtime/cli/foreground.h"
#include "runtime/cli/notify.h"
#include "runtime/seccomp.h"

namespace gantry::runtime {
namespace {

absl::StatusOr<std::string> AbsolutePath(const std::string& path) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr) {
    return sys::ErrnoError(errno, absl::StrCat("open '", EscapeForTerminal(path), "'"));
  }
  return std::string(resolved);
}

absl::StatusOr<int> ParseCount(const Arguments& arguments, absl::string_view name) {
  int count = 0;
  if (!arguments.Has(name)) return count;
  if (absl::SimpleAtoi(arguments.Value(name), &count) && count >= 0 && count < 1024) return count;
  return absl::InvalidArgumentError(absl::StrCat("--", name, ": not a small number"));
}

// Sockets that were passed to us by the LISTEN_FDS protocol go on into the container.
absl::StatusOr<int> ListenFds() {
  const char* text = ::getenv("LISTEN_FDS");
  int count = 0;
  if (text == nullptr) return count;
  if (absl::SimpleAtoi(text, &count) && count >= 0 && count < 1024) return count;
  return absl::InvalidArgumentError("LISTEN_FDS in the environment is not a number");
}

absl::StatusOr<CreateOptions> MakeCreateOptions(const Global& global, const Arguments& arguments) {
  CreateOptions options;
  options.id = arguments.operands()[0];
  options.state_root = global.root;
  ASSIGN_OR_RETURN(options.bundle,
                   AbsolutePath(arguments.Has("bundle") ? arguments.Value("bundle") : "."));
  if (arguments.Has("config")) options.config_name = arguments.Value("config");
  options.stdio = {0, 1, 2};
  options.console_socket = arguments.Value("console-socket");
  options.pid_file = arguments.Value("pid-file");
  options.pidfd_socket = arguments.Value("pidfd-socket");
  ASSIGN_OR_RETURN(options.preserve_fds, ParseCount(arguments, "preserve-fds"));
  ASSIGN_OR_RETURN(options.listen_fds, ListenFds());
  options.no_pivot = arguments.IsSet("no-pivot");
  options.no_new_keyring = arguments.IsSet("no-new-keyring");
  options.cgroup_manager = global.cgroup_manager;
  options.rootless = global.rootless;
  return options;
}

absl::Status NeedConsoleSocket(Container& container) {
  // Create hands the master over only when there is a terminal and nobody else to give it to.
  if (!container.TakeConsole().ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "process.terminal is set and the container is detached: give --console-socket");
}

std::string TimingText(const Container& container) {
  std::string text = "steps in microseconds:";
  int64_t total = 0;
  for (const Timing& timing : container.timings()) {
    absl::StrAppend(&text, " ", timing.step, "=", timing.microseconds);
    total += timing.microseconds;
  }
  return absl::StrCat(text, " total=", total);
}

// Only a detached start can wait for the container to be ready.
void OfferNotify(CreateOptions* options) {
  if (const char* socket = ::getenv("NOTIFY_SOCKET")) options->notify_socket = socket;
}

absl::StatusOr<int> RunCreate(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(CreateOptions options, MakeCreateOptions(global, arguments));
  OfferNotify(&options);
  ASSIGN_OR_RETURN(Container container, Container::Create(options));
  absl::Status console = NeedConsoleSocket(container);
  if (!console.ok()) {
    (void)container.Delete(true);
    return console;
  }
  return 0;
}

absl::StatusOr<int> RunRun(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(CreateOptions options, MakeCreateOptions(global, arguments));
  const bool detach = arguments.IsSet("detach");
  // Nobody else can start it, so it need not be reachable by others, and it dies with us until
  // then.
  options.start_by_others = false;
  if (detach) OfferNotify(&options);
  Foreground foreground;
  if (!detach) RETURN_IF_ERROR(foreground.Begin());
  ASSIGN_OR_RETURN(Container container, Container::Create(options));
  Notify notify;
  absl::Status status = detach ? NeedConsoleSocket(container) : absl::OkStatus();
  if (status.ok() && detach) status = notify.Begin(options.state_root, options.id);
  if (status.ok()) status = container.Start();
  if (status.ok()) status = notify.Await(container);
  if (!status.ok()) {
    (void)container.Delete(true);
    return status;
  }
  global.report->Debug([&] { return TimingText(container); });
  if (detach) return 0;
  ASSIGN_OR_RETURN(int code, foreground.Wait(container.pidfd(), container.TakeConsole()));
  if (arguments.IsSet("keep")) return code;
  std::vector<std::string> warnings;
  RETURN_IF_ERROR(container.Delete(true, &warnings));
  for (const std::string& warning : warnings) global.report->Warning(warning);
  return code;
}

absl::StatusOr<int> RunStart(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[0]));
  Notify notify;
  RETURN_IF_ERROR(notify.Begin(global.root, container.id()));
  RETURN_IF_ERROR(container.Start());
  RETURN_IF_ERROR(notify.Await(container));
  return 0;
}

absl::StatusOr<int> RunState(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[0]));
  ASSIGN_OR_RETURN(State state, container.GetState());
  RETURN_IF_ERROR(Print(json::Indent(WriteState(state)) + "\n"));
  return 0;
}

// The id, or with --regex all that match the extended regular expression.
absl::StatusOr<std::vector<std::string>> MatchingIds(const Global& global,
                                                     const Arguments& arguments) {
  const std::string& word = arguments.operands()[0];
  if (!arguments.IsSet("regex")) return std::vector<std::string>{word};
  regex_t pattern;
  if (::regcomp(&pattern, word.c_str(), REG_EXTENDED | REG_NOSUB) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--regex: '", EscapeForTerminal(word), "' is not a regular expression"));
  }
  absl::Cleanup release = [&] { ::regfree(&pattern); };
  ASSIGN_OR_RETURN(std::vector<std::string> ids, ListContainers(global.root));
  ids.erase(std::remove_if(ids.begin(), ids.end(),
                           [&](const std::string& id) {
                             return ::regexec(&pattern, id.c_str(), 0, nullptr, 0) != 0;
                           }),
            ids.end());
  return ids;
}

absl::StatusOr<int> RunKill(const Global& global, const Arguments& arguments) {
  const std::string text = arguments.operands().size() > 1 ? arguments.operands()[1] : "TERM";
  ASSIGN_OR_RETURN(int signal, oci::ParseSignal(text));
  ASSIGN_OR_RETURN(std::vector<std::string> ids, MatchingIds(global, arguments));
  for (const std::string& id : ids) {
    ASSIGN_OR_RETURN(Container container, Container::Load(global.root, id));
    RETURN_IF_ERROR(container.Kill(signal, arguments.IsSet("all")));
  }
  return 0;
}

absl::StatusOr<int> RunDelete(const Global& global, const Arguments& arguments) {
  const bool force = arguments.IsSet("force");
  ASSIGN_OR_RETURN(std::vector<std::string> ids, MatchingIds(global, arguments));
  for (const std::string& id : ids) {
    absl::StatusOr<Container> container = Container::Load(global.root, id);
    if (force && !container.ok()) {
      // Unknown is as good as deleted; a record that cannot be read is only removed by force.
      RETURN_IF_ERROR(absl::IsInvalidArgument(container.status()) ? container.status()
                                                                  : ForceDelete(global.root, id));
      continue;
    }
    RETURN_IF_ERROR(container.status());
    std::vector<std::string> warnings;
    RETURN_IF_ERROR(container->Delete(force, &warnings));
    for (const std::string& warning : warnings) global.report->Warning(warning);
  }
  return 0;
}

absl::StatusOr<int> RunPause(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[0]));
  RETURN_IF_ERROR(container.Pause());
  return 0;
}

absl::StatusOr<int> RunResume(const Global& global, const Arguments& arguments) {
  ASSIGN_OR_RETURN(Container container, Container::Load(global.root, arguments.operands()[0]));
  RETURN_IF_ERROR(container.Resume());
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
    json::Writer writer;
    writer.BeginArray();
    for (const State& state : states) writer.WriteRaw(WriteState(state));
    writer.EndArray();
    out = writer.Take() + "\n";
  } else if (format == "table") {
    size_t width = 2;
    for (const State& state : states) width = std::max(width, state.id.size());
    const auto row = [&](absl::string_view id, absl::string_view pid, absl::string_view status,
                         absl::string_view bundle, absl::string_view created,
                         absl::string_view owner) {
      absl::StrAppendFormat(&out, "%-*s  %-9s  %-9s  %s  %s  %s\n", static_cast<int>(width), id,
                            pid, status, bundle, created, owner);
    };
    row("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER");
    for (const State& state : states) {
      row(state.id, absl::StrCat(state.pid), StatusName(state.status),
          EscapeForTerminal(state.bundle), FormatRfc3339Nano(state.created), state.owner);
    }
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("--format: '", EscapeForTerminal(format), "' is neither table nor json"));
  }
  RETURN_IF_ERROR(Print(out));
  return 0;
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
    return absl::InvalidArgumentError(
        absl::StrCat("--format: '", EscapeForTerminal(format), "' is neither table nor json"));
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

absl::StatusOr<int> RunCheckpoint(const Global&, const Arguments&) {
  return absl::UnimplementedError(
      "checkpoint and restore are not supported by this version; it reports so in `features`");
}

}  // namespace

absl::Status Print(absl::string_view text) {
  return sys::WriteAll(sys::UniqueFd(::fcntl(1, F_DUPFD_CLOEXEC, 3)), text);
}

std::string VersionText() {
  return absl::StrCat("gantry-runtime version ", kVersion,
                      "\ncommit: unknown\nspec: ", oci::kSpecVersion,
                      "\nlibseccomp: ", LibseccompVersion(), "\n+CAP +SECCOMP +EBPF\n");
}

const std::vector<Command>& Commands() {
  using O = OptionSpec;
  static const std::vector<OptionSpec> kCreate = {{"bundle", 'b', O::kValue},
                                                  {"config", 'f', O::kValue},
                                                  {"console-socket", 0, O::kValue},
                                                  {"pid-file", 0, O::kValue},
                                                  {"pidfd-socket", 0, O::kValue},
                                                  {"preserve-fds", 0, O::kValue},
                                                  {"no-pivot", 0, O::kFlag},
                                                  {"no-new-keyring", 0, O::kFlag},
                                                  {"no-subreaper", 0, O::kFlag, true},
                                                  {"detach", 'd', O::kFlag},
                                                  {"keep", 0, O::kFlag}};
  static const std::vector<OptionSpec> kCheckpoint = {
      {"image-path", 0, O::kValue},   {"work-path", 0, O::kValue},
      {"parent-path", 0, O::kValue},  {"leave-running", 0, O::kFlag},
      {"pre-dump", 0, O::kFlag},      {"tcp-established", 0, O::kFlag},
      {"ext-unix-sk", 0, O::kFlag},   {"shell-job", 0, O::kFlag},
      {"file-locks", 0, O::kFlag},    {"manage-cgroups-mode", 0, O::kValue},
      {"empty-ns", 0, O::kValue},     {"lazy-pages", 0, O::kFlag},
      {"status-fd", 0, O::kValue},    {"page-server", 0, O::kValue},
      {"bundle", 'b', O::kValue},     {"pid-file", 0, O::kValue},
      {"detach", 'd', O::kFlag},      {"no-pivot", 0, O::kFlag},
      {"no-subreaper", 0, O::kFlag},  {"console-socket", 0, O::kValue},
      {"preserve-fds", 0, O::kValue}, {"no-new-keyring", 0, O::kFlag}};
  static const auto* commands = new std::vector<Command>{
      {"create", "[options] ID", "make a container whose program waits for start", kCreate, 1, 1,
       false, true, 1, &RunCreate},
      {"start",
       "ID",
       "start the program of a created container",
       {},
       1,
       1,
       false,
       false,
       1,
       &RunStart},
      {"run", "[options] ID", "create, start, and unless detached wait and delete", kCreate, 1, 1,
       false, true, 1, &RunRun},
      {"state", "ID", "print the state as JSON", {}, 1, 1, false, false, 1, &RunState},
      {"kill",
       "[options] ID [SIGNAL]",
       "send a signal (TERM) to the program",
       {{"all", 'a', O::kFlag}, {"regex", 'r', O::kFlag}},
       1,
       2,
       false,
       false,
       1,
       &RunKill},
      {"delete",
       "[options] ID",
       "remove a stopped container",
       {{"force", 'f', O::kFlag}, {"regex", 'r', O::kFlag}},
       1,
       1,
       false,
       false,
       1,
       &RunDelete},
      {"exec",
       "[options] ID PROGRAM [ARGUMENT…]",
       "run one more program in a running container",
       {{"process", 'p', O::kValue},
        {"detach", 'd', O::kFlag},
        {"tty", 't', O::kFlag},
        {"user", 'u', O::kValue},
        {"additional-gids", 'g', O::kValue},
        {"env", 'e', O::kValue},
        {"cwd", 0, O::kValue},
        {"cap", 'c', O::kValue},
        {"no-new-privs", 0, O::kFlag},
        {"apparmor", 0, O::kValue},
        {"process-label", 0, O::kValue},
        {"pid-file", 0, O::kValue},
        {"console-socket", 0, O::kValue},
        {"pidfd-socket", 0, O::kValue},
        {"preserve-fds", 0, O::kValue},
        {"cgroup", 0, O::kValue},
        {"ignore-paused", 0, O::kFlag},
        {"no-subreaper", 0, O::kFlag, true}},
       1,
       1,
       true,
       true,
       255,
       &RunExecCommand},
      {"pause", "ID", "freeze all processes", {}, 1, 1, false, false, 1, &RunPause},
      {"resume", "ID", "thaw all processes", {}, 1, 1, false, false, 1, &RunResume},
      {"ps",
       "[options] ID [PS-OPTION…]",
       "list the processes",
       {{"format", 'f', O::kValue}},
       1,
       1,
       true,
       false,
       1,
       &RunPs},
      {"list",
       "[options]",
       "list containers",
       {{"format", 'f', O::kValue}, {"quiet", 'q', O::kFlag}},
       0,
       0,
       false,
       false,
       1,
       &RunList},
      {"update",
       "[options] ID",
       "change resource limits",
       {{"resources", 'r', O::kValue},         {"memory", 0, O::kValue},
        {"memory-reservation", 0, O::kValue},  {"memory-swap", 0, O::kValue},
        {"cpu-period", 0, O::kValue},          {"cpu-quota", 0, O::kValue},
        {"cpu-burst", 0, O::kValue},           {"cpu-share", 0, O::kValue},
        {"cpu-shares", 0, O::kValue},          {"cpu-rt-period", 0, O::kValue},
        {"cpu-rt-runtime", 0, O::kValue},      {"cpu-idle", 0, O::kValue},
        {"cpuset-cpus", 0, O::kValue},         {"cpuset-mems", 0, O::kValue},
        {"blkio-weight", 0, O::kValue},        {"pids-limit", 0, O::kValue},
        {"l3-cache-schema", 0, O::kValue},     {"mem-bw-schema", 0, O::kValue},
        {"kernel-memory", 0, O::kValue, true}, {"kernel-memory-tcp", 0, O::kValue, true}},
       1,
       1,
       false,
       false,
       1,
       &RunUpdate},
      {"events",
       "[options] ID",
       "print resource use and lack of memory as they happen",
       {{"stats", 0, O::kFlag}, {"interval", 0, O::kValue}},
       1,
       1,
       false,
       false,
       1,
       &RunEvents},
      {"spec",
       "[options]",
       "write an example config.json",
       {{"bundle", 'b', O::kValue}, {"rootless", 0, O::kFlag}, {"config", 'f', O::kValue}},
       0,
       0,
       false,
       false,
       1,
       &RunSpec},
      {"features",
       "",
       "print what this runtime knows, as JSON",
       {},
       0,
       0,
       false,
       false,
       1,
       &RunFeatures},
      {"checkpoint", "[options] ID", "not supported", kCheckpoint, 1, 1, false, false, 1,
       &RunCheckpoint},
      {"restore", "[options] ID", "not supported", kCheckpoint, 1, 1, false, false, 1,
       &RunCheckpoint},
  };
  return *commands;
}

}  // namespace gantry::runtime
