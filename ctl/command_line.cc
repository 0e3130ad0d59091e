#include "ctl/command_line.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

// Letters to insert, remove, replace or swap with a neighbour to turn `a` into `b`.
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1,
                             cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

absl::StatusOr<bool> ParseTruth(absl::string_view flag, absl::string_view text) {
  const std::string word = absl::AsciiStrToLower(text);
  if (word == "true" || word == "1" || word == "t") return true;
  if (word == "false" || word == "0" || word == "f") return false;
  return absl::InvalidArgumentError(absl::StrCat("invalid value '", EscapeForTerminal(text),
                                                 "' of the switch ", flag, ": use true or false"));
}

std::string CountText(const CommandSpec& command) {
  const auto arguments = [](int count) {
    return absl::StrCat(count, count == 1 ? " argument" : " arguments");
  };
  if (command.most_arguments == 0) return "accepts no arguments";
  if (command.most_arguments == command.least_arguments) {
    return absl::StrCat("requires ", arguments(command.least_arguments));
  }
  if (command.most_arguments < 0) {
    return absl::StrCat("requires at least ", arguments(command.least_arguments));
  }
  return absl::StrCat("requires ", command.least_arguments, " to ",
                      arguments(command.most_arguments));
}

}  // namespace

bool Arguments::Has(absl::string_view flag) const {
  return std::any_of(flags_.begin(), flags_.end(),
                     [&](const auto& given) { return given.first == flag; });
}

bool Arguments::Is(absl::string_view flag, bool otherwise) const {
  return Has(flag) ? Text(flag) == "true" : otherwise;
}

std::string Arguments::Text(absl::string_view flag, absl::string_view otherwise) const {
  for (auto it = flags_.rbegin(); it != flags_.rend(); ++it) {
    if (it->first == flag) return it->second;
  }
  return std::string(otherwise);
}

std::vector<std::string> Arguments::List(absl::string_view flag) const {
  std::vector<std::string> values;
  for (const auto& [name, value] : flags_) {
    if (name == flag) values.push_back(value);
  }
  return values;
}

// Walks the words once. Lives for one ParseCommandLine.
class CommandLineParser {
 public:
  CommandLineParser(const CommandSpec& command, absl::Span<const std::string> words)
      : command_(command), words_(words) {}

  absl::StatusOr<Arguments> Parse() {
    while (next_ < words_.size()) {
      const absl::string_view word = words_[next_++];
      if (word == "--") {
        TakeRest();
      } else if (absl::StartsWith(word, "--")) {
        RETURN_IF_ERROR(ParseLong(word.substr(2)));
      } else if (word.size() > 1 && word[0] == '-') {
        RETURN_IF_ERROR(ParseShort(word.substr(1)));
      } else {
        arguments_.positional_.emplace_back(word);
        if (command_.flags_stop_at_argument) TakeRest();
      }
    }
    RETURN_IF_ERROR(CheckCount());
    return std::move(arguments_);
  }

 private:
  void TakeRest() {
    arguments_.positional_.insert(arguments_.positional_.end(), words_.begin() + next_,
                                  words_.end());
    next_ = words_.size();
  }

  const FlagSpec* Find(absl::string_view name) const {
    for (const FlagSpec& flag : command_.flags) {
      if (name == flag.name) return &flag;
    }
    return nullptr;
  }

  const FlagSpec* Find(char letter) const {
    for (const FlagSpec& flag : command_.flags) {
      if (flag.letter != 0 && letter == flag.letter) return &flag;
    }
    return nullptr;
  }

  absl::Status Add(const FlagSpec& flag, absl::string_view as_typed, absl::string_view value) {
    const char* name = flag.stands_for != nullptr ? flag.stands_for : flag.name;
    if (flag.kind == FlagKind::kSwitch) {
      ASSIGN_OR_RETURN(bool truth, ParseTruth(as_typed, value));
      arguments_.flags_.emplace_back(name, truth ? "true" : "false");
    } else {
      arguments_.flags_.emplace_back(name, std::string(value));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<absl::string_view> NextWord(absl::string_view as_typed) {
    if (next_ >= words_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("flag needs an argument: ", as_typed));
    }
    return absl::string_view(words_[next_++]);
  }

  absl::Status ParseLong(absl::string_view text) {
    const size_t equals = text.find('=');
    const absl::string_view name = text.substr(0, equals);
    const std::string as_typed = absl::StrCat("--", name);
    const FlagSpec* flag = Find(name);
    if (flag == nullptr) {
      if (name == "help") {
        arguments_.help_wanted_ = true;
        return absl::OkStatus();
      }
      return UnknownFlag(name);
    }
    if (equals != absl::string_view::npos) return Add(*flag, as_typed, text.substr(equals + 1));
    if (flag->kind == FlagKind::kSwitch) return Add(*flag, as_typed, "true");
    ASSIGN_OR_RETURN(absl::string_view value, NextWord(as_typed));
    return Add(*flag, as_typed, value);
  }

  absl::Status ParseShort(absl::string_view letters) {
    const std::string word = absl::StrCat("-", letters);
    while (!letters.empty()) {
      const char letter = letters.front();
      letters.remove_prefix(1);
      const std::string as_typed = absl::StrCat("-", std::string(1, letter));
      const FlagSpec* flag = Find(letter);
      if (flag == nullptr) {
        if (letter == 'h') {
          arguments_.help_wanted_ = true;
          continue;
        }
        return absl::InvalidArgumentError(absl::StrCat("unknown shorthand flag: '",
                                                       EscapeForTerminal(std::string(1, letter)),
                                                       "' in ", EscapeForTerminal(word)));
      }
      const bool has_equals = !letters.empty() && letters.front() == '=';
      if (flag->kind == FlagKind::kSwitch && !has_equals) {
        RETURN_IF_ERROR(Add(*flag, as_typed, "true"));
        continue;
      }
      if (has_equals) letters.remove_prefix(1);
      if (has_equals || !letters.empty()) return Add(*flag, as_typed, letters);
      ASSIGN_OR_RETURN(absl::string_view value, NextWord(as_typed));
      return Add(*flag, as_typed, value);
    }
    return absl::OkStatus();
  }

  absl::Status UnknownFlag(absl::string_view name) const {
    std::vector<absl::string_view> names = {"help"};
    for (const FlagSpec& flag : command_.flags) {
      if (flag.help[0] != '\0') names.push_back(flag.name);
    }
    const std::string nearest = NearestWord(name, names);
    return absl::InvalidArgumentError(
        absl::StrCat("unknown flag: --", EscapeForTerminal(name),
                     nearest.empty() ? "" : absl::StrCat("; did you mean --", nearest, "?")));
  }

  absl::Status CheckCount() const {
    const int count = static_cast<int>(arguments_.positional_.size());
    if (arguments_.help_wanted_ ||
        (count >= command_.least_arguments &&
         (command_.most_arguments < 0 || count <= command_.most_arguments))) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("'gantryctl ", command_.name, "' ", CountText(command_)));
  }

  const CommandSpec& command_;
  absl::Span<const std::string> words_;
  size_t next_ = 0;
  Arguments arguments_;
};

absl::StatusOr<Arguments> ParseCommandLine(const CommandSpec& command,
                                           absl::Span<const std::string> words) {
  return CommandLineParser(command, words).Parse();
}

std::string NearestWord(absl::string_view word, const std::vector<absl::string_view>& candidates) {
  if (word.size() > 64) return "";  // Nobody meant that, and the table below is quadratic.
  absl::string_view best;
  size_t best_distance = std::min<size_t>(3, std::max<size_t>(1, word.size() / 3)) + 1;
  for (absl::string_view candidate : candidates) {
    const size_t distance = EditDistance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return std::string(best);
}

std::string HelpText(const CommandSpec& command) {
  std::string out = absl::StrCat("Usage:  gantryctl ", command.name, " ", command.arguments, "\n\n",
                                 command.summary, "\n");
  size_t width = 0;
  std::vector<std::pair<std::string, const FlagSpec*>> lines;
  for (const FlagSpec& flag : command.flags) {
    if (flag.help[0] == '\0') continue;
    std::string left = flag.letter != 0 ? absl::StrCat("  -", std::string(1, flag.letter), ", ")
                                        : std::string("      ");
    absl::StrAppend(&left, "--", flag.name, flag.value_name[0] != '\0' ? " " : "", flag.value_name);
    width = std::max(width, left.size());
    lines.emplace_back(std::move(left), &flag);
  }
  if (!lines.empty()) {
    std::sort(lines.begin(), lines.end(), [](const auto& a, const auto& b) {
      return absl::string_view(a.second->name) < absl::string_view(b.second->name);
    });
    absl::StrAppend(&out, "\nOptions:\n");
  }
  for (const auto& [left, flag] : lines) {
    absl::StrAppend(&out, left, std::string(width - left.size() + 3, ' '), flag->help, "\n");
  }
  if (command.examples[0] != '\0') {
    absl::StrAppend(&out, "\nExamples:\n");
    for (absl::string_view line : absl::StrSplit(command.examples, '\n', absl::SkipEmpty())) {
      absl::StrAppend(&out, "  ", line, "\n");
    }
  }
  return out;
}

}  // namespace gantry::ctl
