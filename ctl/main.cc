// gantryctl: what people type. Finds the command, gives it its arguments, leaves by _exit, since
// tearing down costs more than many a command.

#include <signal.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ctl/commands/commands.h"
#include "ctl/context.h"
#include "ctl/suite.h"
#include "ctl/terminal.h"
#include "lib/base/identifier.h"
#include "lib/base/version.h"

namespace gantry::ctl {
namespace {

constexpr FlagSpec kGlobalFlags[] = {
    {"debug", 'D', FlagKind::kSwitch, "", "Errors tell their code"},
    {"host", 'H', FlagKind::kText, "string", "Sockets of the suite"},
    {"namespace", 'n', FlagKind::kText, "string", "Namespace"},
    {"version", 'v', FlagKind::kSwitch, "", "Print the version"},
};
// Global flags stand before the command; everything after belongs to it.
constexpr CommandSpec kGlobal = {"", "", "", kGlobalFlags, 0, -1, true, "", nullptr};

std::string Setting(const Arguments& global, const char* flag, const char* variable) {
  if (global.Has(flag)) return global.Text(flag);
  const char* value = ::getenv(variable);
  return value != nullptr ? value : "";
}

void PrintText(Context& context, absl::string_view text) { context.out().Write(text); }

// `help`, `help COMMAND`, a bare group, or nothing at all.
int Help(Context& context, absl::Span<const std::string> words) {
  if (words.empty()) {
    PrintText(context, OverviewText());
    return kExitOk;
  }
  const FoundCommand found = FindCommand(words);
  const std::string group = GroupText(words[0]);
  if (found.command != nullptr) {
    PrintText(context, HelpText(*found.command));
  } else if (!group.empty()) {
    PrintText(context, group);
  } else {
    return context.Fail("",
                        absl::NotFoundError(absl::StrCat("there is no command '", words[0], "'")));
  }
  return kExitOk;
}

int UnknownCommand(Context& context, absl::Span<const std::string> words) {
  const std::string group = GroupText(words[0]);
  if (words.size() == 1 && !group.empty()) {
    PrintText(context, group);
    return kExitOk;
  }
  context.Fail("", absl::InvalidArgumentError(absl::StrCat(
                       "'", group.empty() ? words[0] : absl::StrCat(words[0], " ", words[1]),
                       "' is not a gantryctl command")));
  const std::string meant = MeantCommand(words);
  context.Note(meant.empty() ? "hint: gantryctl help" : absl::StrCat("hint: gantryctl ", meant));
  return kExitFailed;
}

int RunCommand(Context& context, absl::Span<const std::string> words) {
  if (words.empty()) {
    PrintText(context, OverviewText());
    return kExitOk;
  }
  if (words[0] == "help") return Help(context, words.subspan(1));
  const FoundCommand found = FindCommand(words);
  if (found.command == nullptr) {
    // `gantryctl volume --help`.
    if (words.size() > 1 && (words[1] == "--help" || words[1] == "-h")) {
      return Help(context, words.subspan(0, 1));
    }
    return UnknownCommand(context, words);
  }
  absl::StatusOr<Arguments> arguments =
      ParseCommandLine(*found.command, words.subspan(found.words));
  if (!arguments.ok()) {
    context.Fail("", arguments.status());
    const std::string meant = words.size() > 1 ? MeantCommand(words.subspan(0, 2)) : "";
    context.Note(meant.empty() || meant == found.command->name
                     ? absl::StrCat("See 'gantryctl ", found.command->name, " --help'.")
                     : absl::StrCat("hint: gantryctl ", meant));
    // As Docker: a flag that is wrong is 125, a wrong number of words is 1, but for run.
    const bool flag = absl::StrContains(arguments.status().message(), "flag") ||
                      absl::StrContains(arguments.status().message(), "switch");
    const absl::string_view name = found.command->name;
    return flag || name == "run" ? kExitRunFailed : kExitFailed;
  }
  if (arguments->help_wanted()) {
    PrintText(context, HelpText(*found.command));
    return kExitOk;
  }
  return found.command->run(context, *arguments);
}

int Main(int argc, char** argv) {
  // Writing to a pipe that nobody reads is an error to see, not a signal to die of.
  ::signal(SIGPIPE, SIG_IGN);
  const std::vector<std::string> words(argv + 1, argv + argc);
  absl::StatusOr<Arguments> global = ParseCommandLine(kGlobal, words);
  Context plain(Suite(kDefaultRunDirectory, kDefaultNamespace), STDIN_FILENO, STDOUT_FILENO,
                STDERR_FILENO);
  if (!global.ok()) {
    plain.Fail("", global.status());
    plain.Note("See 'gantryctl --help'.");
    return kExitRunFailed;
  }
  absl::StatusOr<std::string> directory = ParseHost(Setting(*global, "host", "GANTRY_HOST"));
  if (!directory.ok()) return plain.Fail("", directory.status());
  std::string name_space = Setting(*global, "namespace", "GANTRY_NAMESPACE");
  if (name_space.empty()) name_space = kDefaultNamespace;
  const absl::Status good = CheckIdentifier("namespace", name_space);
  if (!good.ok()) return plain.Fail("", good);
  Context context(Suite(*std::move(directory), std::move(name_space)), STDIN_FILENO, STDOUT_FILENO,
                  STDERR_FILENO);
  context.debug = global->Is("debug");
  context.json_errors = context.Environment("GANTRY_ERROR_FORMAT") == "json";
  int exit_code;
  if (global->Is("version")) {
    PrintText(context, absl::StrCat("gantryctl version ", Version(), "\n"));
    exit_code = kExitOk;
  } else {
    exit_code = RunCommand(
        context, global->help_wanted() ? absl::Span<const std::string>() : global->positional());
  }
  context.out().Flush();
  context.err().Flush();
  return exit_code;
}

}  // namespace
}  // namespace gantry::ctl

int main(int argc, char** argv) {
  const int exit_code = gantry::ctl::Main(argc, argv);
  gantry::ctl::RestoreTerminal();
  ::_exit(exit_code);
}
