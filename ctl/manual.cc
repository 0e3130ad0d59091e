#include "ctl/manual.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "ctl/commands/commands.h"
#include "lib/base/version.h"

namespace gantry::ctl {
namespace {

// Text as roff takes it: no escapes of its own, no line that looks like a request.
std::string Roff(absl::string_view text) {
  std::string out = absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}});
  if (!out.empty() && (out[0] == '.' || out[0] == '\'')) out.insert(0, "\\&");
  return out;
}

std::string Header(absl::string_view name) {
  return absl::StrCat(".TH \"", absl::AsciiStrToUpper(name), "\" \"1\" \"\" \"Gantry ", Version(),
                      "\" \"Gantry\"\n");
}

std::string Examples(absl::string_view examples) {
  if (examples.empty()) return "";
  std::string out = ".SH EXAMPLES\n.nf\n";
  for (absl::string_view line : absl::StrSplit(examples, '\n', absl::SkipEmpty())) {
    absl::StrAppend(&out, Roff(line), "\n");
  }
  return absl::StrCat(out, ".fi\n");
}

std::string Option(const FlagSpec& flag) {
  std::string out = ".TP\n";
  if (flag.letter != 0) absl::StrAppend(&out, "\\fB\\-", std::string(1, flag.letter), "\\fR, ");
  absl::StrAppend(&out, "\\fB\\-\\-", Roff(flag.name), "\\fR");
  if (flag.value_name[0] != '\0') absl::StrAppend(&out, " \\fI", Roff(flag.value_name), "\\fR");
  return absl::StrCat(out, "\n", Roff(flag.help), "\n");
}

}  // namespace

std::string ManualName(const CommandSpec& command) {
  return absl::StrCat("gantryctl-", absl::StrReplaceAll(command.name, {{" ", "-"}}));
}

std::string ManualPage(const CommandSpec& command) {
  std::string out =
      absl::StrCat(Header(ManualName(command)), ".SH NAME\n", Roff(ManualName(command)), " \\- ",
                   Roff(command.summary), "\n.SH SYNOPSIS\n\\fBgantryctl ", Roff(command.name),
                   "\\fR ", Roff(command.arguments), "\n");
  std::vector<const FlagSpec*> flags;
  for (const FlagSpec& flag : command.flags) {
    if (flag.help[0] != '\0') flags.push_back(&flag);
  }
  std::sort(flags.begin(), flags.end(), [](const FlagSpec* a, const FlagSpec* b) {
    return absl::string_view(a->name) < absl::string_view(b->name);
  });
  if (!flags.empty()) absl::StrAppend(&out, ".SH OPTIONS\n");
  for (const FlagSpec* flag : flags) absl::StrAppend(&out, Option(*flag));
  return absl::StrCat(out, Examples(command.examples), ".SH SEE ALSO\n\\fBgantryctl\\fR(1)\n");
}

std::string ManualOverview() {
  std::string out =
      absl::StrCat(Header("gantryctl"),
                   ".SH NAME\ngantryctl \\- run and look after containers\n"
                   ".SH SYNOPSIS\n\\fBgantryctl\\fR [OPTIONS] COMMAND\n.SH COMMANDS\n");
  for (const CommandSpec* command : AllCommands()) {
    if (command->summary[0] == '\0') continue;
    absl::StrAppend(&out, ".TP\n\\fB", Roff(ManualName(*command)), "\\fR(1)\n",
                    Roff(command->summary), "\n");
  }
  for (absl::string_view name :
       {"GANTRY_HOST", "GANTRY_NAMESPACE", "GANTRY_DETACH_KEYS", "GANTRY_ERROR_FORMAT"}) {
    if (name == "GANTRY_HOST") absl::StrAppend(&out, ".SH ENVIRONMENT\n");
    absl::StrAppend(&out, "\\fB", name, "\\fR\n.br\n");
  }
  return out;
}

}  // namespace gantry::ctl
