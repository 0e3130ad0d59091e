// gantry-runtime: the OCI runtime's command line over the library.
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/options.h"
#include "runtime/cli/report.h"

namespace gantry::runtime {
namespace {

constexpr int kFailure = 1;

const std::vector<OptionSpec>& GlobalOptions() {
  using O = OptionSpec;
  static const auto* options = new std::vector<OptionSpec>{{"root", 0, O::kValue},
                                                           {"log", 0, O::kValue},
                                                           {"log-format", 0, O::kValue},
                                                           {"log-level", 0, O::kValue},
                                                           {"debug", 0, O::kFlag},
                                                           {"systemd-cgroup", 0, O::kFlag},
                                                           {"cgroup-manager", 0, O::kValue},
                                                           {"rootless", 0, O::kOptionalValue},
                                                           {"version", 'v', O::kFlag},
                                                           {"help", 'h', O::kFlag},
                                                           {"criu", 0, O::kValue}};
  return *options;
}

std::string HelpText() {
  std::string text =
      "usage: gantry-runtime [--root DIR] [--log FILE] [--log-format text|json] [--debug]\n"
      "                      [--systemd-cgroup] [--cgroup-manager cgroupfs|systemd|disabled]\n"
      "                      [--rootless[=true|false]] COMMAND …\n\ncommands:\n";
  for (const Command& command : Commands()) {
    absl::StrAppendFormat(&text, "  %-11s %s\n", command.name, command.help);
  }
  absl::StrAppend(&text, "\n`gantry-runtime COMMAND --help` names a command's options.\n");
  return text;
}

std::string CommandHelp(const Command& command) {
  std::string text = absl::StrCat("usage: gantry-runtime ", command.name, " ", command.usage,
                                  "\n\n", command.help, "\n\noptions:\n");
  for (const OptionSpec& option : command.options) {
    absl::StrAppend(&text, "  ",
                    option.letter == 0 ? "    " : absl::StrFormat("-%c, ", option.letter), "--",
                    option.name, option.kind == OptionSpec::kValue ? " VALUE" : "",
                    option.ignored ? "  (without effect)" : "", "\n");
  }
  return text;
}

std::string DefaultRoot() {
  const char* directory = ::getenv("XDG_RUNTIME_DIR");
  if (::geteuid() != 0 && directory != nullptr && directory[0] == '/') {
    return absl::StrCat(directory, "/gantry-runtime");
  }
  return "/run/gantry-runtime";
}

absl::Status ReadGlobal(const Arguments& arguments, Global* global, Report* report) {
  const std::string format = arguments.Value("log-format");
  if (!format.empty() && format != "text" && format != "json") {
    return absl::InvalidArgumentError(
        absl::StrCat("--log-format: '", EscapeForTerminal(format), "' is neither text nor json"));
  }
  RETURN_IF_ERROR(
      report->Open(arguments.Value("log"), format == "json" ? LogFormat::kJson : LogFormat::kText));
  report->set_debug(arguments.IsSet("debug"));
  global->root = arguments.Has("root") ? arguments.Value("root") : DefaultRoot();
  if (global->root.empty() || global->root[0] != '/') {
    char here[4096];
    if (global->root.empty() || ::getcwd(here, sizeof here) == nullptr) {
      return absl::InvalidArgumentError("--root: not a path");
    }
    global->root = absl::StrCat(here, "/", global->root);
  }
  if (arguments.IsSet("systemd-cgroup")) global->cgroup_manager = CgroupManager::kSystemd;
  if (arguments.Has("cgroup-manager")) {
    const std::string manager = arguments.Value("cgroup-manager");
    if (manager == "cgroupfs") {
      global->cgroup_manager = CgroupManager::kCgroupfs;
    } else if (manager == "systemd") {
      global->cgroup_manager = CgroupManager::kSystemd;
    } else if (manager == "disabled") {
      global->cgroup_manager = CgroupManager::kDisabled;
    } else {
      return absl::InvalidArgumentError(absl::StrCat("--cgroup-manager: '",
                                                     EscapeForTerminal(manager),
                                                     "' is not cgroupfs, systemd or disabled"));
    }
  }
  global->criu = arguments.Value("criu");
  const std::string rootless = arguments.Has("rootless") ? arguments.Value("rootless") : "auto";
  if (rootless != "true" && rootless != "false" && rootless != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("--rootless: '", EscapeForTerminal(rootless), "' is not true, false or auto"));
  }
  if (rootless != "auto") global->rootless = rootless == "true";
  return absl::OkStatus();
}

const Command* FindCommand(const std::string& name) {
  for (const Command& command : Commands()) {
    if (name == command.name) return &command;
  }
  return nullptr;
}

absl::StatusOr<int> RunCommand(const Command& command, const Global& global,
                               const std::vector<std::string>& words) {
  std::vector<OptionSpec> options = command.options;
  options.push_back({"help", 'h', OptionSpec::kFlag});
  ASSIGN_OR_RETURN(Arguments arguments,
                   ParseArguments(options, words,
                                  command.rest_is_program ? command.max_operands : kAllOperands));
  if (arguments.IsSet("help")) {
    RETURN_IF_ERROR(Print(CommandHelp(command)));
    return 0;
  }
  const size_t given = arguments.operands().size();
  if (given < command.min_operands || (given > command.max_operands && !command.rest_is_program)) {
    return absl::InvalidArgumentError(
        absl::StrCat(command.name, ": wrong number of arguments; usage: gantry-runtime ",
                     command.name, " ", command.usage));
  }
  if (command.id_first && command.min_operands > 0 && !arguments.IsSet("regex")) {
    RETURN_IF_ERROR(CheckContainerId(arguments.operands()[0]));
  }
  return command.run(global, arguments);
}

int Main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  Report report;
  Global global;
  global.report = &report;
  global.argv = argv;
  const std::vector<std::string> words(argv + 1, argv + argc);
  size_t consumed = 0;
  absl::StatusOr<Arguments> arguments =
      ParseArguments(GlobalOptions(), words, kAllOperands, &consumed);
  absl::Status status = arguments.status();
  if (status.ok()) status = ReadGlobal(*arguments, &global, &report);
  if (!status.ok()) {
    report.Error(status.message());
    return kFailure;
  }
  if (arguments->IsSet("version") || arguments->IsSet("help") || consumed == words.size()) {
    const bool wanted = arguments->IsSet("version") || arguments->IsSet("help");
    const std::string text = arguments->IsSet("version") ? VersionText() : HelpText();
    if (!Print(text).ok()) return kFailure;
    return wanted ? 0 : kFailure;
  }
  const Command* command = FindCommand(words[consumed]);
  if (command == nullptr) {
    report.Error(
        absl::StrCat("unknown command '", EscapeForTerminal(words[consumed]), "'; see --help"));
    return kFailure;
  }
  if (command->enters_container) status = ProtectSelf(argv);
  if (status.ok()) status = failpoint::ArmFromEnvironment();
  if (!status.ok()) {
    report.Error(status.message());
    return kFailure;
  }
  absl::StatusOr<int> code = RunCommand(
      *command, global, std::vector<std::string>(words.begin() + consumed + 1, words.end()));
  if (code.ok()) return *code;
  report.Error(code.status().message());
  return command->failure_code;
}

}  // namespace
}  // namespace gantry::runtime

namespace {
constexpr int kHeapGrowthBytes = 512 << 10;
}  // namespace

int main(int argc, char** argv) {
  // A caller may have closed them; what we open may not become the program's stdin by accident.
  while (::fcntl(2, F_GETFD) < 0 || ::fcntl(1, F_GETFD) < 0 || ::fcntl(0, F_GETFD) < 0) {
    if (::open("/dev/null", O_RDWR) < 0) return 1;
  }
  // One growth of the heap instead of many: every call counts in a program of ten milliseconds.
  ::mallopt(M_TOP_PAD, kHeapGrowthBytes);
  // Nothing needs destructors at the end; leaving at once saves their time.
  ::_exit(gantry::runtime::Main(argc, argv));
}
