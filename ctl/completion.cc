#include "ctl/completion.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "ctl/commands/commands.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

// Colons are parts of image names and of CONTAINER:PATH, not breaks.
constexpr char kBash[] = R"(# bash completion of gantryctl: source <(gantryctl completion bash)
_gantryctl() {
  local IFS=$'\n'
  COMPREPLY=($(gantryctl __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//:}
complete -o default -F _gantryctl gantryctl
)";
constexpr char kZsh[] = R"(#compdef gantryctl
# zsh completion of gantryctl: source <(gantryctl completion zsh)
_gantryctl() {
  local -a candidates
  candidates=("${(@f)$(gantryctl __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n ${candidates[1]} ]]; then compadd -a candidates; else _files; fi
}
compdef _gantryctl gantryctl
)";
constexpr char kFish[] = R"(# fish completion of gantryctl: gantryctl completion fish | source
complete -c gantryctl -a '(gantryctl __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
)";

// What a flag's value is chosen from, where that is a short list.
const std::map<absl::string_view, std::vector<std::string>>& ValuesOfFlags() {
  static const auto* const values = new std::map<absl::string_view, std::vector<std::string>>{
      {"attach", {"stderr", "stdin", "stdout"}},
      {"cgroupns", {"host", "private"}},
      {"ipc", {"host", "none", "private", "shareable"}},
      {"log-driver", {"json-file", "none"}},
      {"network", {"bridge", "host", "none"}},
      {"pid", {"host", "private"}},
      {"pull", {"always", "missing", "never"}},
      {"restart", {"always", "no", "on-failure", "unless-stopped"}},
      {"signal", {"HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2"}},
      {"stop-signal", {"HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2"}},
      {"type", {"container", "image", "volume"}},
      {"uts", {"host", "private"}},
  };
  return *values;
}

const FlagSpec* FindFlag(const CommandSpec& command, absl::string_view word) {
  for (const FlagSpec& flag : command.flags) {
    if (word == absl::StrCat("--", flag.name)) return &flag;
    if (flag.letter != 0 && word == absl::StrCat("-", std::string(1, flag.letter))) return &flag;
  }
  return nullptr;
}

// Names of commands and groups that begin with the words typed so far, the last one in parts.
std::set<std::string> NextWords(absl::Span<const std::string> words) {
  std::string before = absl::StrJoin(words.subspan(0, words.size() - 1), " ");
  if (!before.empty()) before += " ";
  std::set<std::string> next;
  for (const std::string& name : AllCommandNames()) {
    absl::string_view rest = name;
    if (absl::ConsumePrefix(&rest, before))
      next.insert(std::string(rest.substr(0, rest.find(' '))));
  }
  return next;
}

std::vector<std::string> FlagNames(const CommandSpec& command) {
  std::vector<std::string> names = {"--help"};
  for (const FlagSpec& flag : command.flags) {
    if (flag.help[0] != '\0') names.push_back(absl::StrCat("--", flag.name));
  }
  return names;
}

// What the command's next argument is, by the words of its synopsis.
std::vector<std::string> ArgumentsOf(const CommandSpec& command, size_t given,
                                     const NamesOf& names) {
  const absl::string_view synopsis = command.arguments;
  // Only the first word is ours to guess, unless the command takes several of a kind.
  if (given > 0 && (command.flags_stop_at_argument || command.most_arguments == 1)) return {};
  std::vector<std::string> found;
  for (const auto& [word, kind] :
       {std::pair<absl::string_view, absl::string_view>{"CONTAINER", "container"},
        {"IMAGE", "image"},
        {"VOLUME", "volume"},
        {"NAME|ID", "container"}}) {
    if (!absl::StrContains(synopsis, word)) continue;
    for (std::string& name : names(kind)) found.push_back(std::move(name));
  }
  return found;
}

std::vector<std::string> Matching(std::vector<std::string> all, absl::string_view prefix) {
  all.erase(std::remove_if(all.begin(), all.end(),
                           [&](const std::string& one) { return !absl::StartsWith(one, prefix); }),
            all.end());
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

// Where the arguments stand that precede the last word: how many, and whether that one is a value.
struct Position {
  size_t given = 0;
  const FlagSpec* wants_value = nullptr;
  bool flags_over = false;
};

Position Walk(const CommandSpec& command, absl::Span<const std::string> words) {
  Position position;
  for (const std::string& word : words) {
    if (position.wants_value != nullptr) {
      position.wants_value = nullptr;
    } else if (!position.flags_over && word == "--") {
      position.flags_over = true;
    } else if (!position.flags_over && word.size() > 1 && word[0] == '-') {
      const FlagSpec* flag = FindFlag(command, word);
      if (flag != nullptr && flag->kind != FlagKind::kSwitch) position.wants_value = flag;
    } else {
      ++position.given;
      position.flags_over |= command.flags_stop_at_argument;
    }
  }
  return position;
}

}  // namespace

absl::StatusOr<std::string> CompletionScript(absl::string_view shell) {
  if (shell == "bash") return std::string(kBash);
  if (shell == "zsh") return std::string(kZsh);
  if (shell == "fish") return std::string(kFish);
  return absl::InvalidArgumentError(absl::StrCat(
      "no completion for the shell '", EscapeForTerminal(shell), "': use bash, zsh or fish"));
}

std::vector<std::string> Candidates(absl::Span<const std::string> words, const NamesOf& names) {
  if (words.empty()) return {};
  const std::string& last = words.back();
  const absl::Span<const std::string> before = words.subspan(0, words.size() - 1);
  const FoundCommand found = FindCommand(before);
  if (found.command == nullptr) {
    const std::set<std::string> next = NextWords(words);
    return Matching({next.begin(), next.end()}, last);
  }
  const Position position = Walk(*found.command, before.subspan(found.words));
  if (position.wants_value != nullptr) {
    const auto values = ValuesOfFlags().find(position.wants_value->name);
    return values == ValuesOfFlags().end() ? std::vector<std::string>()
                                           : Matching(values->second, last);
  }
  if (!position.flags_over && absl::StartsWith(last, "-")) {
    return Matching(FlagNames(*found.command), last);
  }
  return Matching(ArgumentsOf(*found.command, position.given, names), last);
}

}  // namespace gantry::ctl
