// version, info and the system group: what runs, and whether it is well.

#include <sys/utsname.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "ctl/commands/commands.h"
#include "ctl/names.h"
#include "ctl/table.h"
#include "ctl/template.h"
#include "gantry/debug/v1/debug.pb.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/metadata/v1/metadata.pb.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/base/version.h"

namespace gantry::ctl {
namespace {

namespace debug = ::gantry::debug::v1;
namespace engine = ::gantry::engine::v1;
namespace metadata = ::gantry::metadata::v1;

// Every process that has a socket; the order is the order of dependencies.
constexpr absl::string_view kProcesses[] = {"metadata", "snapshotter", "image",
                                            "task",     "engine",      "gateway"};

// A look at the whole disk may take long on a large store.
constexpr absl::Duration kAuditCall = absl::Minutes(5);

Value ClientVersion() {
  utsname system = {};
  ::uname(&system);
  Value client = Value::Object();
  return client.Set("Version", ::gantry::Version())
      .Set("GitCommit", ::gantry::Commit())
      .Set("Os", "linux")
      .Set("Arch", std::string(system.machine) == "x86_64" ? "amd64" : system.machine);
}

// Prints a document as --format says; anything but "" and "json" is a template.
int PrintFormatted(Context& context, const Value& value, const std::string& format) {
  if (format == "json") {
    context.out().Write(absl::StrCat(value.ToJson(), "\n"));
    return kExitOk;
  }
  absl::StatusOr<Template> parsed = Template::Parse(UnescapeFormat(format));
  if (!parsed.ok()) return context.Fail("cannot format", parsed.status());
  absl::StatusOr<std::string> text = parsed->Execute(value);
  if (!text.ok()) return context.Fail("cannot format", text.status());
  context.out().Write(absl::StrCat(*text, "\n"));
  return kExitOk;
}

Value ProcessValue(const debug::InfoResponse& info) {
  Value value = Value::Object();
  return value.Set("Name", absl::StrCat("gantry-", info.process()))
      .Set("Version", info.version())
      .Set("GitCommit", info.commit())
      .Set("BuildTime", info.build_time())
      .Set("Pid", info.pid())
      .Set("StartedAt", FormatRfc3339Nano(ToTime(info.started_at())))
      .Set("ResidentBytes", info.resident_bytes());
}

std::string VersionText(const Value& client, const std::vector<debug::InfoResponse>& servers) {
  std::string out =
      absl::StrCat("Client: Gantry\n", " Version:           ", client.Find("Version")->ToText(),
                   "\n Git commit:        ", client.Find("GitCommit")->ToText(),
                   "\n OS/Arch:           ", client.Find("Os")->ToText(), "/",
                   client.Find("Arch")->ToText(), "\n");
  if (servers.empty()) return out;
  absl::StrAppend(&out, "\nServer: Gantry\n");
  for (const debug::InfoResponse& info : servers) {
    absl::StrAppend(&out, " gantry-", EscapeForTerminal(info.process()), ":\n",
                    "  Version:          ", EscapeForTerminal(info.version()), "\n",
                    "  Git commit:       ", EscapeForTerminal(info.commit()), "\n",
                    "  Built:            ", EscapeForTerminal(info.build_time()), "\n",
                    "  Pid:              ", info.pid(), "\n",
                    "  Memory:           ", BinarySize(info.resident_bytes()), "\n");
  }
  return out;
}

int ShowVersion(Context& context, const Arguments& arguments) {
  const Value client = ClientVersion();
  std::vector<debug::InfoResponse> servers;
  int exit_code = kExitOk;
  std::vector<std::pair<std::string, absl::Status>> missing;
  if (!arguments.Is("client")) {
    for (const absl::string_view process : kProcesses) {
      debug::InfoResponse info;
      const absl::Status status =
          context.suite().Call(process, "/gantry.debug.v1.Debug/Info", debug::InfoRequest(), &info);
      if (status.ok()) {
        servers.push_back(std::move(info));
      } else {
        missing.emplace_back(std::string(process), status);
      }
    }
  }
  const std::string format = arguments.Text("format");
  if (format.empty()) {
    context.out().Write(VersionText(client, servers));
  } else {
    Value components = Value::List();
    for (const debug::InfoResponse& info : servers) components.Add(ProcessValue(info));
    Value server = Value::Object();
    server.Set("Version", servers.empty() ? "" : servers.back().version())
        .Set("Components", components);
    Value value = Value::Object();
    value.Set("Client", client).Set("Server", arguments.Is("client") ? Value() : server);
    exit_code = PrintFormatted(context, value, format);
  }
  for (const auto& [process, status] : missing) {
    exit_code = context.Fail(absl::StrCat("cannot ask gantry-", process), status);
  }
  return exit_code;
}

// The lines of `info` below "Server:", in Docker's order, and their JSON.
struct InfoLine {
  const char* label;  // "" for a line of its own.
  const char* key;
  std::string value;
  int level = 1;
};

std::vector<InfoLine> InfoLines(const engine::SystemInfoResponse& info) {
  const uint32_t total =
      info.containers_running() + info.containers_paused() + info.containers_stopped();
  std::vector<InfoLine> lines = {
      {"Containers", "Containers", absl::StrCat(total)},
      {"Running", "ContainersRunning", absl::StrCat(info.containers_running()), 2},
      {"Paused", "ContainersPaused", absl::StrCat(info.containers_paused()), 2},
      {"Stopped", "ContainersStopped", absl::StrCat(info.containers_stopped()), 2},
      {"Images", "Images", absl::StrCat(info.images())},
      {"Server Version", "ServerVersion", info.version()},
      {"Storage Driver", "Driver", info.storage_driver()},
      {"Logging Driver", "LoggingDriver", info.logging_driver()},
      {"Cgroup Driver", "CgroupDriver", info.cgroup_driver()},
      {"Cgroup Version", "CgroupVersion", info.cgroup_version()},
      {"Plugins", "", ""},
      {"Volume", "", "local", 2},
      {"Network", "", "bridge host none", 2},
      {"Log", "", "json-file none", 2},
      {"Swarm", "", "inactive"},
      {"Runtimes", "", absl::StrJoin(info.runtimes(), " ")},
      {"Default Runtime", "DefaultRuntime", info.default_runtime()},
      {"Security Options", "", absl::StrJoin(info.security_options(), " ")},
      {"Kernel Version", "KernelVersion", info.kernel_version()},
      {"Operating System", "OperatingSystem", info.operating_system()},
      {"OSType", "OSType", info.os_type()},
      {"Architecture", "Architecture", info.architecture()},
      {"CPUs", "NCPU", absl::StrCat(info.cpus())},
      {"Total Memory", "", BinarySize(info.memory_bytes())},
      {"Name", "Name", info.name()},
      {"ID", "ID", info.id()},
      {"Gantry Root Dir", "GantryRootDir", info.root_directory()},
      {"Insecure Registries", "", absl::StrJoin(info.insecure_registries(), " ")},
      {"Live Restore Enabled", "", "true"},
  };
  return lines;
}

std::string InfoText(const engine::SystemInfoResponse& info) {
  std::string out =
      absl::StrCat("Client: Gantry\n Version:    ", ::gantry::Version(), "\n\nServer:\n");
  const std::map<std::string, std::string> facts(info.storage_facts().begin(),
                                                 info.storage_facts().end());
  for (const InfoLine& line : InfoLines(info)) {
    absl::StrAppend(&out, std::string(static_cast<size_t>(line.level), ' '), line.label, ":",
                    line.value.empty() ? "" : " ", EscapeForTerminal(line.value), "\n");
    if (absl::string_view(line.label) != "Storage Driver") continue;
    for (const auto& [name, value] : facts) {
      absl::StrAppend(&out, "  ", EscapeForTerminal(name), ": ", EscapeForTerminal(value), "\n");
    }
  }
  return out;
}

Value InfoValue(const engine::SystemInfoResponse& info) {
  Value value = Value::Object();
  for (const InfoLine& line : InfoLines(info)) {
    if (line.key[0] == '\0') continue;
    int64_t number;
    // Counts are numbers in JSON, as Docker's.
    const bool counts = absl::StartsWith(line.key, "Containers") ||
                        absl::string_view(line.key) == "Images" ||
                        absl::string_view(line.key) == "NCPU";
    if (counts && absl::SimpleAtoi(line.value, &number)) {
      value.Set(line.key, number);
    } else {
      value.Set(line.key, line.value);
    }
  }
  return value.Set("DriverStatus", Value::MapOf(info.storage_facts()))
      .Set("MemTotal", info.memory_bytes())
      .Set("Runtimes", Value::ListOf(info.runtimes()))
      .Set("SecurityOptions", Value::ListOf(info.security_options()))
      .Set("InsecureRegistries", Value::ListOf(info.insecure_registries()))
      .Set("LiveRestoreEnabled", true)
      .Set("Warnings", Value::ListOf(info.warnings()));
}

int Info(Context& context, const Arguments& arguments) {
  engine::SystemInfoResponse info;
  const absl::Status status = context.suite().Call("engine", "/gantry.engine.v1.System/Info",
                                                   engine::SystemInfoRequest(), &info);
  if (!status.ok()) {
    if (arguments.Text("format").empty()) {
      context.out().Write(
          absl::StrCat("Client: Gantry\n Version:    ", ::gantry::Version(), "\n\nServer:\n"));
    }
    return context.Fail("cannot read the server's part", status);
  }
  if (!arguments.Text("format").empty()) {
    return PrintFormatted(context, InfoValue(info), arguments.Text("format"));
  }
  context.out().Write(InfoText(info));
  for (const std::string& warning : info.warnings()) {
    context.Note(absl::StrCat("WARNING: ", EscapeForTerminal(warning)));
  }
  return kExitOk;
}

Value FindingValue(absl::string_view process, const debug::Finding& finding) {
  Value value = Value::Object();
  return value.Set("Process", process)
      .Set("Kind", finding.kind())
      .Set("Object", finding.object())
      .Set("Problem", finding.problem())
      .Set("Remedy", finding.remedy());
}

std::string FindingText(absl::string_view process, const debug::Finding& finding) {
  return absl::StrCat(
      process, ": ", EscapeForTerminal(finding.kind()), " '", EscapeForTerminal(finding.object()),
      "' ", EscapeForTerminal(finding.problem()),
      finding.remedy().empty() ? "" : absl::StrCat("; ", EscapeForTerminal(finding.remedy())),
      "\n");
}

int Audit(Context& context, const Arguments& arguments) {
  const std::string format = arguments.Text("format");
  if (!format.empty() && format != "json") {
    return context.Fail("cannot audit", absl::InvalidArgumentError("--format can only be json"));
  }
  int exit_code = kExitOk;
  size_t leaks = 0;
  uint64_t checked = 0;
  Value findings = Value::List();
  Value counts = Value::Object();
  for (const absl::string_view process : kProcesses) {
    debug::AuditResponse response;
    const absl::Status status = context.suite().Call(process, "/gantry.debug.v1.Debug/Audit",
                                                     debug::AuditRequest(), &response, kAuditCall);
    if (!status.ok()) {
      // A process that cannot be asked may hide anything: not clean.
      exit_code = context.Fail(absl::StrCat("cannot audit gantry-", process), status);
      continue;
    }
    for (const debug::Finding& finding : response.findings()) {
      ++leaks;
      if (format.empty()) {
        context.out().Write(FindingText(process, finding));
      } else {
        findings.Add(FindingValue(process, finding));
      }
    }
    Value kinds = Value::Object();
    for (const auto& [kind, count] : response.checked()) {
      checked += count;
      kinds.Set(kind, count);
    }
    kinds.SortMembers();
    counts.Set(process, kinds);
  }
  if (format == "json") {
    Value report = Value::Object();
    report.Set("Leaks", static_cast<uint64_t>(leaks))
        .Set("Findings", findings)
        .Set("Checked", counts);
    context.out().Write(absl::StrCat(report.ToJson(), "\n"));
  } else {
    context.out().Write(
        absl::StrCat(leaks, leaks == 1 ? " leak" : " leaks", " (", checked, " objects checked)\n"));
  }
  return leaks == 0 ? exit_code : kExitFailed;
}

// Those that were named, or all.
std::vector<std::string> ChosenProcesses(const Arguments& arguments) {
  if (!arguments.positional().empty()) return arguments.positional();
  return {std::begin(kProcesses), std::end(kProcesses)};
}

bool IsProcess(absl::string_view name) {
  return std::find(std::begin(kProcesses), std::end(kProcesses), name) != std::end(kProcesses);
}

absl::Status ListFailpoints(Context& context, absl::string_view process) {
  debug::ListFailpointsResponse response;
  RETURN_IF_ERROR(context.suite().Call(process, "/gantry.debug.v1.Debug/ListFailpoints",
                                       debug::ListFailpointsRequest(), &response));
  for (const std::string& name : response.names()) {
    context.out().Write(absl::StrCat(process, " ", name, "\n"));
  }
  return absl::OkStatus();
}

int FailpointsList(Context& context, const Arguments& arguments) {
  const std::vector<std::string> processes = ChosenProcesses(arguments);
  return context.ForEach(processes, "list failpoints of", false, [&](const std::string& process) {
    if (!IsProcess(process)) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no such process; use ", absl::StrJoin(kProcesses, ", ")));
    }
    return ListFailpoints(context, process);
  });
}

int FailpointsSet(Context& context, const Arguments& arguments) {
  const std::string& process = arguments.positional()[0];
  const std::string attempt = absl::StrCat("cannot set failpoints of \"", process, "\"");
  if (!IsProcess(process)) {
    return context.Fail(attempt,
                        absl::InvalidArgumentError(absl::StrCat("there is no such process; use ",
                                                                absl::StrJoin(kProcesses, ", "))));
  }
  debug::SetFailpointsRequest request;
  debug::SetFailpointsResponse response;
  request.set_specification(
      absl::StrJoin(absl::MakeConstSpan(arguments.positional()).subspan(1), ";"));
  const absl::Status status =
      context.suite().Call(process, "/gantry.debug.v1.Debug/SetFailpoints", request, &response);
  return status.ok() ? kExitOk : context.Fail(attempt, status);
}

void PrintGarbage(Context& context, absl::string_view verb, const metadata::GarbageItem& item) {
  context.out().Write(absl::StrCat(
      verb, " ", item.kind(), " ", EscapeForTerminal(item.namespace_()), "/",
      EscapeForTerminal(item.key()),
      item.reason().empty() ? "" : absl::StrCat(" (", EscapeForTerminal(item.reason()), ")"),
      "\n"));
}

int Gc(Context& context, const Arguments& arguments) {
  if (arguments.Is("dry-run")) {
    metadata::PlanResponse plan;
    const absl::Status status = context.suite().Call("metadata", "/gantry.metadata.v1.Garbage/Plan",
                                                     metadata::PlanRequest(), &plan, kSlowCall);
    if (!status.ok()) return context.Fail("cannot plan a collection", status);
    for (const metadata::GarbageItem& item : plan.removed()) PrintGarbage(context, "remove", item);
    if (arguments.Is("verbose")) {
      for (const metadata::GarbageItem& item : plan.kept()) PrintGarbage(context, "keep", item);
    }
    return kExitOk;
  }
  metadata::CollectResponse collected;
  const absl::Status status =
      context.suite().Call("metadata", "/gantry.metadata.v1.Garbage/Collect",
                           metadata::CollectRequest(), &collected, kSlowCall);
  if (!status.ok()) return context.Fail("cannot collect garbage", status);
  for (const metadata::GarbageItem& item : collected.removed()) {
    PrintGarbage(context, "removed", item);
  }
  context.out().Write(
      absl::StrCat("Total reclaimed space: ", DecimalSize(collected.freed_bytes()), "\n"));
  return kExitOk;
}

int Metrics(Context& context, const Arguments& arguments) {
  const std::vector<std::string> processes = ChosenProcesses(arguments);
  return context.ForEach(
      processes, "read metrics of", false, [&](const std::string& process) -> absl::Status {
        if (!IsProcess(process)) return absl::InvalidArgumentError("there is no such process");
        debug::MetricsResponse response;
        RETURN_IF_ERROR(context.suite().Call(process, "/gantry.debug.v1.Debug/Metrics",
                                             debug::MetricsRequest(), &response));
        context.out().Write(response.text());
        return absl::OkStatus();
      });
}

int Overhead(Context& context, const Arguments& arguments) {
  std::vector<std::vector<std::string>> rows = {{"PROCESS", "PID", "MEMORY"}};
  uint64_t total = 0;
  int exit_code = kExitOk;
  for (const absl::string_view process : kProcesses) {
    debug::InfoResponse info;
    const absl::Status status =
        context.suite().Call(process, "/gantry.debug.v1.Debug/Info", debug::InfoRequest(), &info);
    if (!status.ok()) {
      exit_code = context.Fail(absl::StrCat("cannot ask gantry-", process), status);
      continue;
    }
    total += info.resident_bytes();
    rows.push_back({absl::StrCat("gantry-", process), absl::StrCat(info.pid()),
                    BinarySize(info.resident_bytes())});
  }
  rows.push_back({"total", "", BinarySize(total)});
  context.out().Write(FormatTable(rows));
  return exit_code;
}

constexpr FlagSpec kVersionFlags[] = {
    {"client", 0, FlagKind::kSwitch, "", "Only this program; asks nobody"},
    {"format", 'f', FlagKind::kText, "string", "'json' or a template"},
};
constexpr FlagSpec kFormatFlags[] = {
    {"format", 'f', FlagKind::kText, "string", "'json' or a template"},
};
constexpr FlagSpec kAuditFlags[] = {
    {"format", 'f', FlagKind::kText, "string", "'json': one object with all findings"},
};
constexpr FlagSpec kGcFlags[] = {
    {"dry-run", 'n', FlagKind::kSwitch, "", "Say what would go and why; change nothing"},
    {"verbose", 'v', FlagKind::kSwitch, "", "With --dry-run, also what stays and why"},
};

}  // namespace

absl::Span<const CommandSpec> SystemCommands() {
  static const CommandSpec kCommands[] = {
      {"version", "[OPTIONS]", "Show the versions of gantryctl and of every process", kVersionFlags,
       0, 0, false, "", ShowVersion},
      {"info", "[OPTIONS]", "Show facts about the whole suite", kFormatFlags, 0, 0, false, "",
       Info},
      {"system audit", "[OPTIONS]",
       "Compare all records with kernel and disk; 0 leaks is exit code 0", kAuditFlags, 0, 0, false,
       "", Audit},
      {"system failpoints ls",
       "[PROCESS...]",
       "List the named failure points of processes",
       {},
       0,
       -1,
       false,
       "",
       FailpointsList},
      {"system failpoints set",
       "PROCESS SPECIFICATION...",
       "Arm failure points: name=error|delay(ms)|kill|pause|enospc|off[@n]",
       {},
       2,
       -1,
       false,
       "gantryctl system failpoints set engine 'engine.create.commit=error@2'",
       FailpointsSet},
      {"system gc", "[OPTIONS]", "Remove what nothing refers to any more", kGcFlags, 0, 0, false,
       "gantryctl system gc -n -v", Gc},
      {"system metrics",
       "[PROCESS...]",
       "Print the Prometheus text of processes",
       {},
       0,
       -1,
       false,
       "",
       Metrics},
      {"system overhead",
       "",
       "Show how much memory the suite itself takes",
       {},
       0,
       0,
       false,
       "",
       Overhead},
  };
  return kCommands;
}

}  // namespace gantry::ctl
