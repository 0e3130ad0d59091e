#include "ctl/commands/commands.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace gantry::ctl {
namespace {

// Grouped forms and other names people type, and the flat verb behind each (E.1).
struct Alias {
  const char* words;
  const char* command;
};
constexpr Alias kAliases[] = {
    {"container attach", "attach"},
    {"container cp", "cp"},
    {"container create", "create"},
    {"container exec", "exec"},
    {"container kill", "kill"},
    {"container list", "ps"},
    {"container logs", "logs"},
    {"container ls", "ps"},
    {"container pause", "pause"},
    {"container port", "port"},
    {"container ps", "ps"},
    {"container remove", "rm"},
    {"container rename", "rename"},
    {"container restart", "restart"},
    {"container rm", "rm"},
    {"container run", "run"},
    {"container start", "start"},
    {"container stop", "stop"},
    {"container top", "top"},
    {"container unpause", "unpause"},
    {"container wait", "wait"},
    {"image list", "images"},
    {"image load", "load"},
    {"image ls", "images"},
    {"image pull", "pull"},
    {"image remove", "rmi"},
    {"image rm", "rmi"},
    {"image tag", "tag"},
    {"system events", "events"},
    {"system failpoints", "system failpoints ls"},
    {"system info", "info"},
    {"volume list", "volume ls"},
    {"volume remove", "volume rm"},
};
constexpr size_t kLongestName = 3;  // "system failpoints ls".

struct Group {
  const char* name;
  const char* summary;
};
constexpr Group kGroups[] = {
    {"container", "Manage containers"},
    {"image", "Manage images"},
    {"system", "Look after the suite itself"},
    {"volume", "Manage volumes"},
};

constexpr const char* kCommon[] = {"run",  "exec",   "ps",      "logs",
                                   "pull", "images", "version", "info"};

// Words that are often typed and mean something else here.
constexpr Alias kMisunderstandings[] = {
    {"images ls", "images"},
    {"images rm", "rmi"},
    {"image prune", "system gc"},
    {"ps images", "images"},
    {"containers", "ps"},
    {"list", "ps"},
    {"ls", "ps"},
    {"delete", "rm"},
    {"remove", "rm"},
    {"shell", "exec -it CONTAINER sh"},
    {"gc", "system gc"},
    {"audit", "system audit"},
};

const CommandSpec* FindByName(absl::string_view name) {
  for (const CommandSpec* command : AllCommands()) {
    if (name == command->name) return command;
  }
  return nullptr;
}

std::string Line(absl::string_view name, absl::string_view summary) {
  constexpr size_t kWidth = 12;
  return absl::StrCat("  ", name, std::string(name.size() < kWidth ? kWidth - name.size() : 1, ' '),
                      summary, "\n");
}

}  // namespace

std::vector<const CommandSpec*> AllCommands() {
  std::vector<const CommandSpec*> all;
  for (absl::Span<const CommandSpec> part :
       {RunCommands(), AttachCommands(), ExecCommands(), LifecycleCommands(), ListCommands(),
        InspectCommands(), LogCommands(), EventCommands(), CopyCommands(), ImageCommands(),
        VolumeCommands(), SystemCommands(), HelpCommands()}) {
    for (const CommandSpec& command : part) all.push_back(&command);
  }
  return all;
}

std::vector<std::string> AllCommandNames() {
  std::vector<std::string> names = {"help"};
  for (const CommandSpec* command : AllCommands()) {
    if (command->summary[0] != '\0') names.emplace_back(command->name);
  }
  for (const Alias& alias : kAliases) names.emplace_back(alias.words);
  return names;
}

FoundCommand FindCommand(absl::Span<const std::string> words) {
  // The longest name first: "system failpoints ls" before "system failpoints".
  for (size_t count = std::min(words.size(), kLongestName); count > 0; --count) {
    const std::string name = absl::StrJoin(words.subspan(0, count), " ");
    if (const CommandSpec* command = FindByName(name)) return {command, count};
    for (const Alias& alias : kAliases) {
      if (name == alias.words) return {FindByName(alias.command), count};
    }
  }
  return {};
}

std::string OverviewText() {
  std::string out =
      "Usage:  gantryctl [OPTIONS] COMMAND\n\nRuns and looks after containers.\n\nCommon "
      "Commands:\n";
  for (const char* name : kCommon) absl::StrAppend(&out, Line(name, FindByName(name)->summary));
  absl::StrAppend(&out, "\nManagement Commands:\n");
  for (const Group& group : kGroups) absl::StrAppend(&out, Line(group.name, group.summary));
  absl::StrAppend(&out, "\nCommands:\n");
  std::vector<const CommandSpec*> all = AllCommands();
  std::sort(all.begin(), all.end(), [](const CommandSpec* a, const CommandSpec* b) {
    return absl::string_view(a->name) < absl::string_view(b->name);
  });
  for (const CommandSpec* command : all) {
    const bool common = std::find(std::begin(kCommon), std::end(kCommon),
                                  absl::string_view(command->name)) != std::end(kCommon);
    if (!common && command->summary[0] != '\0' && !absl::StrContains(command->name, ' ')) {
      absl::StrAppend(&out, Line(command->name, command->summary));
    }
  }
  absl::StrAppend(
      &out,
      "\nGlobal Options:\n"
      "  -D, --debug              Errors tell their code\n"
      "  -H, --host string        Sockets of the suite (unix:///run/gantry/gantry.sock, or its "
      "directory)\n"
      "  -n, --namespace string   Namespace of containers and images (gantry)\n"
      "  -v, --version            Print the version\n"
      "\nEnvironment: GANTRY_HOST, GANTRY_NAMESPACE, GANTRY_DETACH_KEYS, GANTRY_ERROR_FORMAT=json\n"
      "\nRun 'gantryctl COMMAND --help' for more about a command.\n");
  return out;
}

std::string GroupText(absl::string_view name) {
  for (const Group& group : kGroups) {
    if (name != group.name) continue;
    std::string out =
        absl::StrCat("Usage:  gantryctl ", name, " COMMAND\n\n", group.summary, "\n\nCommands:\n");
    std::vector<std::pair<std::string, const char*>> lines;
    const std::string prefix = absl::StrCat(name, " ");
    for (const CommandSpec* command : AllCommands()) {
      absl::string_view rest = command->name;
      if (absl::ConsumePrefix(&rest, prefix))
        lines.emplace_back(std::string(rest), command->summary);
    }
    for (const Alias& alias : kAliases) {
      absl::string_view rest = alias.words;
      if (absl::ConsumePrefix(&rest, prefix) && rest != "failpoints") {
        lines.emplace_back(std::string(rest), FindByName(alias.command)->summary);
      }
    }
    std::sort(lines.begin(), lines.end());
    for (const auto& [line, summary] : lines) absl::StrAppend(&out, Line(line, summary));
    absl::StrAppend(&out, "\nRun 'gantryctl ", name,
                    " COMMAND --help' for more about a command.\n");
    return out;
  }
  return "";
}

std::string MeantCommand(absl::Span<const std::string> words) {
  if (words.empty()) return "";
  for (size_t count = std::min<size_t>(words.size(), 2); count > 0; --count) {
    const std::string typed = absl::StrJoin(words.subspan(0, count), " ");
    for (const Alias& misunderstanding : kMisunderstandings) {
      if (typed == misunderstanding.words) return misunderstanding.command;
    }
  }
  // In a group, the group's names; else the first words.
  std::set<std::string> names;
  const bool in_group = words.size() > 1 && !GroupText(words[0]).empty();
  const std::string typed = in_group ? absl::StrCat(words[0], " ", words[1]) : words[0];
  for (const CommandSpec* command : AllCommands()) {
    if (command->summary[0] != '\0' && absl::StrContains(command->name, ' ') == in_group) {
      names.insert(command->name);
    }
  }
  for (const Alias& alias : kAliases) {
    if (in_group) names.insert(alias.words);
  }
  for (const Group& group : kGroups) {
    if (!in_group) names.insert(group.name);
  }
  if (!in_group) return NearestWord(typed, {names.begin(), names.end()});
  // Only the verb was mistyped: the group must not make it look nearer than it is.
  const std::string prefix = absl::StrCat(words[0], " ");
  std::vector<absl::string_view> verbs;
  for (absl::string_view name : names) {
    if (absl::ConsumePrefix(&name, prefix)) verbs.push_back(name);
  }
  const std::string verb = NearestWord(words[1], verbs);
  return verb.empty() ? "" : absl::StrCat(prefix, verb);
}

}  // namespace gantry::ctl
