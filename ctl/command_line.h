// Command lines as Docker's users type them: what a command is and takes (CommandSpec), and what
// somebody typed (Arguments).
//
// Rules: `--flag value`, `--flag=value`, `-f value`, `-fvalue`, `-f=value`; short switches combine
// (`-dit`); a switch may say `=true` or `=false`; `--` ends the flags; flags may stand anywhere
// unless the command says that they stop at its first argument (run, create, exec). `--help` and,
// unless the command has a -h of its own, `-h` ask for help.
//
// Own code rather than CLI11: the tables cost nothing at start, and every rule above is ours to
// test.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace gantry::ctl {

enum class FlagKind {
  kSwitch,  // Takes no value.
  kText,    // The last one given counts.
  kList,    // All given count, in order.
};

struct FlagSpec {
  const char* name;  // Without the dashes.
  char letter;       // 0: none.
  FlagKind kind;
  const char* value_name;            // "string", "bytes" …; "" for a switch.
  const char* help;                  // "": an alias or an old name, left out of the help.
  const char* stands_for = nullptr;  // The name whose value this sets, for an alias.
};

// What was typed. Names are those of the specs, aliases resolved.
class Arguments {
 public:
  bool Has(absl::string_view flag) const;
  // A switch; the last one counts.
  bool Is(absl::string_view flag, bool otherwise = false) const;
  // "" when it was not given.
  std::string Text(absl::string_view flag, absl::string_view otherwise = "") const;
  std::vector<std::string> List(absl::string_view flag) const;
  const std::vector<std::string>& positional() const { return positional_; }
  bool help_wanted() const { return help_wanted_; }

 private:
  friend class CommandLineParser;
  std::vector<std::pair<std::string, std::string>> flags_;
  std::vector<std::string> positional_;
  bool help_wanted_ = false;
};

class Context;

struct CommandSpec {
  const char* name;       // "run", "container ls".
  const char* arguments;  // "[OPTIONS] IMAGE [COMMAND] [ARG...]".
  const char* summary;    // One line, no full stop.
  absl::Span<const FlagSpec> flags;
  int least_arguments;
  int most_arguments;  // -1: any number.
  bool flags_stop_at_argument;
  const char* examples;  // Lines, or "".
  int (*run)(Context& context, const Arguments& arguments);
};

// Errors: InvalidArgument — an unknown flag (naming the nearest), a missing or unwanted value, a
// wrong number of arguments. With help_wanted() the arguments are not counted.
absl::StatusOr<Arguments> ParseCommandLine(const CommandSpec& command,
                                           absl::Span<const std::string> words);

// The candidate that `word` was probably meant to be: at most a third of it (and never more than
// three letters) must change. Empty when there is none.
std::string NearestWord(absl::string_view word, const std::vector<absl::string_view>& candidates);

// The text of `gantryctl COMMAND --help`.
std::string HelpText(const CommandSpec& command);

}  // namespace gantry::ctl
