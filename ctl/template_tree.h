// The tree a template is parsed into (text → tree: template_parser.cc; tree → output: template.cc).
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ctl/value.h"

namespace gantry::ctl::internal {

struct Pipeline;

// One word of a command: `.A.B`, `$x.A`, `"text"`, `(pipeline).A` or the name of a function.
struct Operand {
  enum class Kind { kDot, kVariable, kLiteral, kPipeline, kFunction };
  Kind kind = Kind::kDot;
  std::string name;  // Of the variable or function.
  Value literal;
  std::unique_ptr<Pipeline> pipeline;
  std::vector<std::string> fields;  // Picked from it, one after the other.
};

// What stands between two bars: a function or a method with its arguments, or a single value.
struct Command {
  std::vector<Operand> operands;
};

// `$x := command | command`.
struct Pipeline {
  std::vector<std::string> variables;
  bool declares = false;  // `:=` rather than `=`.
  std::vector<Command> commands;
};

struct Node {
  enum class Kind { kList, kText, kAction, kIf, kWith, kRange, kBreak, kContinue };
  Kind kind = Kind::kList;
  std::string text;               // kText.
  Pipeline pipeline;              // kAction, kIf, kWith, kRange.
  std::vector<Node> body;         // kList and what the others repeat or guard.
  std::vector<Node> alternative;  // After {{else}}.
};

absl::StatusOr<std::unique_ptr<Node>> ParseTemplate(absl::string_view text);

// Whether there is a function of that name.
bool IsTemplateFunction(absl::string_view name);

}  // namespace gantry::ctl::internal
