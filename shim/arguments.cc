#include "shim/arguments.h"

#include "absl/strings/string_view.h"

namespace gantry::shim {
namespace {

bool IsTrue(absl::string_view value) {
  return value.empty() || value == "true" || value == "1" || value == "t" || value == "T" ||
         value == "TRUE" || value == "True";
}

}  // namespace

Arguments ParseArguments(const std::vector<std::string>& words) {
  Arguments arguments;
  const struct {
    absl::string_view name;
    std::string* value;
  } texts[] = {{"namespace", &arguments.ns},
               {"id", &arguments.id},
               {"address", &arguments.address},
               {"publish-binary", &arguments.publish_binary},
               {"bundle", &arguments.bundle}};
  const struct {
    absl::string_view name;
    bool* value;
  } flags[] = {{"debug", &arguments.debug},
               {"await", &arguments.await},
               {"v", &arguments.version},
               {"info", &arguments.info},
               {"failpoints", &arguments.failpoints}};
  size_t i = 0;
  for (; i < words.size(); ++i) {
    absl::string_view word = words[i];
    if (word.size() < 2 || word[0] != '-') break;
    if (word == "--") {
      ++i;
      break;
    }
    word.remove_prefix(word[1] == '-' ? 2 : 1);
    const size_t equals = word.find('=');
    const absl::string_view name = word.substr(0, equals);
    const bool has_value = equals != absl::string_view::npos;
    const absl::string_view value = has_value ? word.substr(equals + 1) : absl::string_view();
    bool known = false;
    for (const auto& flag : flags) {
      if (flag.name != name) continue;
      *flag.value = IsTrue(value);
      known = true;
    }
    for (const auto& text : texts) {
      if (text.name != name) continue;
      known = true;
      if (has_value) {
        *text.value = std::string(value);
      } else if (i + 1 < words.size()) {
        *text.value = words[++i];
      }
    }
    // A word that cannot be a flag, and is not the last (the action), belongs to the unknown flag.
    if (!known && !has_value && i + 2 < words.size() && words[i + 1].substr(0, 1) != "-") ++i;
  }
  if (i < words.size()) arguments.action = words[i];
  return arguments;
}

}  // namespace gantry::shim
