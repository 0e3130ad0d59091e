#include "runtime/cli/options.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/text.h"

namespace gantry::runtime {
namespace {

absl::Status Wrong(absl::string_view option, absl::string_view reason) {
  return absl::InvalidArgumentError(
      absl::StrCat("option '", EscapeForTerminal(option), "': ", reason));
}

const OptionSpec* FindOption(const std::vector<OptionSpec>& options, absl::string_view name) {
  auto found = std::find_if(options.begin(), options.end(), [&](const OptionSpec& option) {
    return option.name == name ||
           (name.size() == 1 && option.letter != 0 && option.letter == name[0]);
  });
  return found == options.end() ? nullptr : &*found;
}

}  // namespace

bool Arguments::Has(absl::string_view name) const {
  return std::any_of(given_.begin(), given_.end(),
                     [&](const auto& one) { return one.first == name; });
}

bool Arguments::IsSet(absl::string_view name) const { return Has(name) && Value(name) != "false"; }

std::string Arguments::Value(absl::string_view name) const {
  const std::vector<std::string> all = Values(name);
  return all.empty() ? "" : all.back();
}

std::vector<std::string> Arguments::Values(absl::string_view name) const {
  std::vector<std::string> values;
  for (const auto& [key, value] : given_) {
    if (key == name) values.push_back(value);
  }
  return values;
}

absl::StatusOr<Arguments> ParseArguments(const std::vector<OptionSpec>& options,
                                         const std::vector<std::string>& words, size_t max_operands,
                                         size_t* consumed) {
  Arguments arguments;
  size_t i = 0;
  bool only_operands = false;
  for (; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (arguments.operands_.size() >= max_operands) {
      if (consumed != nullptr) break;
      only_operands = true;
    }
    if (only_operands || word.size() < 2 || word[0] != '-') {
      if (consumed != nullptr && !only_operands) break;  // The command's name.
      arguments.operands_.push_back(word);
      continue;
    }
    if (word == "--") {
      only_operands = true;
      continue;
    }
    absl::string_view body = word;
    body.remove_prefix(absl::StartsWith(word, "--") ? 2 : 1);
    const size_t equals = body.find('=');
    const absl::string_view name = body.substr(0, equals);
    const OptionSpec* option = FindOption(options, name);
    const bool one_dash = !absl::StartsWith(word, "--");
    // "-dt" as -d -t, and "-uVALUE": only where the whole is no option by itself.
    if (option == nullptr && one_dash) {
      absl::string_view letters = word;
      letters.remove_prefix(1);
      bool understood = !letters.empty();
      while (!letters.empty() && understood) {
        const OptionSpec* one = FindOption(options, letters.substr(0, 1));
        if (one == nullptr || one->letter == 0) {
          understood = false;
        } else if (one->kind != OptionSpec::kValue) {
          arguments.given_.push_back({one->name, "true"});
          letters.remove_prefix(1);
        } else {
          letters.remove_prefix(1);
          if (letters.empty()) {
            if (++i >= words.size()) return Wrong(word, "a value is missing");
            letters = words[i];
          }
          arguments.given_.push_back({one->name, std::string(letters)});
          letters = "";
        }
      }
      if (understood) continue;
    }
    if (option == nullptr) return Wrong(word, "is not known; see --help");
    std::string value = "true";
    if (equals != absl::string_view::npos) {
      value = std::string(body.substr(equals + 1));
      if (option->kind == OptionSpec::kFlag && value != "true" && value != "false") {
        return Wrong(word, "takes true or false");
      }
    } else if (option->kind == OptionSpec::kValue) {
      if (++i >= words.size()) return Wrong(word, "a value is missing");
      value = words[i];
    }
    arguments.given_.push_back({option->name, value});
  }
  if (consumed != nullptr) *consumed = i;
  return arguments;
}

}  // namespace gantry::runtime
