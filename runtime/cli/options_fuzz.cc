// Any words on the command line: refused, or understood, never a crash. Words are the input's
// lines.
#include <cstddef>
#include <cstdint>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/options.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> words = absl::StrSplit(text, '\n');
  for (const gantry::runtime::Command& command : gantry::runtime::Commands()) {
    auto all = gantry::runtime::ParseArguments(command.options, words);
    if (all.ok()) {
      for (const auto& option : command.options) (void)all->Values(option.name);
      // Takes its values apart before it looks for the container, which is not there.
      const bool update = command.name == absl::string_view("update");
      if (update && !all->Has("resources") && !all->operands().empty()) {
        gantry::runtime::Global global;
        global.root = "/nonexistent";
        if (command.run(global, *all).ok()) __builtin_trap();
      }
    }
    size_t consumed = 0;
    (void)gantry::runtime::ParseArguments(command.options, words, 1, &consumed);
    if (consumed > words.size()) __builtin_trap();
  }
  return 0;
}
