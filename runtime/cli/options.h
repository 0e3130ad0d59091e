// The command line's options: both `--x=v` and `--x v`, one dash or two, options after operands
// too.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::runtime {

struct OptionSpec {
  const char* name;  // Long name without dashes: "bundle".
  char letter;       // One-letter form, or 0.
  // A flag may be given as --x, --x=true or --x=false; an optional value as --x ("true") or --x=v.
  enum Kind { kFlag, kValue, kOptionalValue } kind;
  bool ignored = false;  // Known, without effect.
};

// What was given. Thread-compatible.
class Arguments {
 public:
  bool Has(absl::string_view name) const;
  bool IsSet(absl::string_view name) const;         // A flag given, and not as "false".
  std::string Value(absl::string_view name) const;  // The last one; "" when not given.
  std::vector<std::string> Values(absl::string_view name) const;
  const std::vector<std::string>& operands() const { return operands_; }

 private:
  friend absl::StatusOr<Arguments> ParseArguments(const std::vector<OptionSpec>&,
                                                  const std::vector<std::string>&, size_t, size_t*);
  std::vector<std::pair<std::string, std::string>> given_;
  std::vector<std::string> operands_;
};

inline constexpr size_t kAllOperands = static_cast<size_t>(-1);

// Parses `words`. After `max_operands` operands the rest belongs to the program, options or not,
// and is taken as operands too (exec ID COMMAND…); with `consumed`, parsing stops there and says
// how many words it took (the global options before the command). Errors: InvalidArgument.
absl::StatusOr<Arguments> ParseArguments(const std::vector<OptionSpec>& options,
                                         const std::vector<std::string>& words,
                                         size_t max_operands = kAllOperands,
                                         size_t* consumed = nullptr);

}  // namespace gantry::runtime
