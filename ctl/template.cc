#include "ctl/template.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "ctl/template_functions.h"
#include "ctl/template_tree.h"
#include "lib/base/status.h"

namespace gantry::ctl {
namespace {

using internal::Command;
using internal::Node;
using internal::Operand;
using internal::Pipeline;

constexpr size_t kMaxOutputBytes = 64 << 20;
constexpr int64_t kMaxSteps = 10'000'000;

// Walks the tree. Lives for one Execute.
class Executor {
 public:
  explicit Executor(const Value& data) { variables_.emplace_back("$", data); }

  enum class Flow { kNext, kBreak, kContinue };

  absl::StatusOr<Flow> RunList(const std::vector<Node>& nodes, const Value& dot) {
    const size_t scope = variables_.size();
    Flow flow = Flow::kNext;
    for (const Node& node : nodes) {
      ASSIGN_OR_RETURN(flow, Run(node, dot));
      if (flow != Flow::kNext) break;
    }
    variables_.resize(scope);
    return flow;
  }

  std::string TakeOutput() { return std::move(out_); }

 private:
  absl::StatusOr<Flow> Run(const Node& node, const Value& dot) {
    RETURN_IF_ERROR(CountStep());
    switch (node.kind) {
      case Node::Kind::kText:
        RETURN_IF_ERROR(Emit(node.text));
        return Flow::kNext;
      case Node::Kind::kBreak:
        return Flow::kBreak;
      case Node::Kind::kContinue:
        return Flow::kContinue;
      case Node::Kind::kList:
        return RunList(node.body, dot);
      case Node::Kind::kAction: {
        ASSIGN_OR_RETURN(Value value, Evaluate(node.pipeline, dot));
        if (node.pipeline.variables.empty()) RETURN_IF_ERROR(Emit(value.ToText()));
        return Flow::kNext;
      }
      case Node::Kind::kIf:
      case Node::Kind::kWith:
        return RunGuarded(node, dot);
      case Node::Kind::kRange:
        return RunRange(node, dot);
    }
    return Flow::kNext;
  }

  absl::StatusOr<Flow> RunGuarded(const Node& node, const Value& dot) {
    const size_t scope = variables_.size();
    ASSIGN_OR_RETURN(Value value, Evaluate(node.pipeline, dot));
    const bool truth = value.IsTrue();
    absl::StatusOr<Flow> flow = RunList(truth ? node.body : node.alternative,
                                        truth && node.kind == Node::Kind::kWith ? value : dot);
    variables_.resize(scope);
    return flow;
  }

  absl::StatusOr<Flow> RunRange(const Node& node, const Value& dot) {
    const size_t scope = variables_.size();
    Pipeline const& pipeline = node.pipeline;
    ASSIGN_OR_RETURN(Value range, EvaluateCommands(pipeline, dot));
    std::vector<std::pair<Value, Value>> items;
    if (range.is_list()) {
      for (const Value& element : range.elements()) {
        items.emplace_back(Value(static_cast<int64_t>(items.size())), element);
      }
    } else if (range.is_object()) {
      for (const auto& [key, value] : range.members()) items.emplace_back(Value(key), value);
    } else if (!range.is_null()) {
      return absl::InvalidArgumentError("template: range wants a list or a map");
    }
    if (items.empty()) return RunList(node.alternative, dot);
    for (const auto& [key, value] : items) {
      RETURN_IF_ERROR(CountStep());
      variables_.resize(scope);
      if (pipeline.variables.size() == 2) variables_.emplace_back(pipeline.variables[0], key);
      if (!pipeline.variables.empty()) variables_.emplace_back(pipeline.variables.back(), value);
      ASSIGN_OR_RETURN(Flow flow, RunList(node.body, value));
      if (flow == Flow::kBreak) break;
    }
    variables_.resize(scope);
    return Flow::kNext;
  }

  absl::StatusOr<Value> Evaluate(const Pipeline& pipeline, const Value& dot) {
    ASSIGN_OR_RETURN(Value value, EvaluateCommands(pipeline, dot));
    for (const std::string& name : pipeline.variables) {
      if (pipeline.declares) {
        variables_.emplace_back(name, value);
        continue;
      }
      Value* variable = FindVariable(name);
      if (variable == nullptr) return NoVariable(name);
      *variable = value;
    }
    return value;
  }

  absl::StatusOr<Value> EvaluateCommands(const Pipeline& pipeline, const Value& dot) {
    Value value;
    for (size_t i = 0; i < pipeline.commands.size(); ++i) {
      ASSIGN_OR_RETURN(value, EvaluateCommand(pipeline.commands[i], dot, i > 0 ? &value : nullptr));
    }
    return value;
  }

  absl::StatusOr<Value> EvaluateCommand(const Command& command, const Value& dot,
                                        const Value* piped) {
    RETURN_IF_ERROR(CountStep());
    const Operand& first = command.operands.front();
    std::vector<Value> arguments;
    for (size_t i = 1; i < command.operands.size(); ++i) {
      ASSIGN_OR_RETURN(Value argument, EvaluateOperand(command.operands[i], dot));
      arguments.push_back(std::move(argument));
    }
    if (piped != nullptr) arguments.push_back(*piped);
    if (first.kind == Operand::Kind::kFunction) {
      ASSIGN_OR_RETURN(Value result, internal::CallTemplateFunction(first.name, arguments));
      return PickFields(std::move(result), first.fields);
    }
    // The one method there is: `.Label "key"`, as Docker's lists have it.
    if (arguments.size() == 1 && !first.fields.empty() && first.fields.back() == "Label") {
      return Label(first, dot, arguments[0]);
    }
    if (!arguments.empty()) {
      return absl::InvalidArgumentError("template: arguments for something that is no function");
    }
    return EvaluateOperand(first, dot);
  }

  absl::StatusOr<Value> Label(const Operand& operand, const Value& dot, const Value& key) {
    ASSIGN_OR_RETURN(Value base, Base(operand, dot));
    std::vector<std::string> path(operand.fields.begin(), operand.fields.end() - 1);
    ASSIGN_OR_RETURN(Value owner, PickFields(std::move(base), path));
    const Value* labels = owner.Find("Label");
    if (labels == nullptr) return absl::InvalidArgumentError("template: these have no labels");
    if (labels->is_text()) return *labels;  // A header.
    const Value* label = labels->Find(key.ToText());
    return label != nullptr ? *label : Value("");
  }

  absl::StatusOr<Value> Base(const Operand& operand, const Value& dot) {
    switch (operand.kind) {
      case Operand::Kind::kDot:
        return dot;
      case Operand::Kind::kLiteral:
        return operand.literal;
      case Operand::Kind::kPipeline:
        return Evaluate(*operand.pipeline, dot);
      case Operand::Kind::kFunction:
        return internal::CallTemplateFunction(operand.name, {});
      case Operand::Kind::kVariable:
        break;
    }
    Value* variable = FindVariable(operand.name);
    if (variable == nullptr) return NoVariable(operand.name);
    return *variable;
  }

  absl::StatusOr<Value> EvaluateOperand(const Operand& operand, const Value& dot) {
    ASSIGN_OR_RETURN(Value base, Base(operand, dot));
    return PickFields(std::move(base), operand.fields);
  }

  static absl::StatusOr<Value> PickFields(Value value, const std::vector<std::string>& fields) {
    for (const std::string& field : fields) {
      if (value.is_null()) return Value();
      const Value* member = value.Find(field);
      // Docker's templates see Go's names beside those of the JSON: .ID for Id, .Status for status.
      if (member == nullptr) member = value.FindAnyCase(field);
      if (member != nullptr) {
        Value found = *member;
        value = std::move(found);
      } else if (value.is_object() && !absl::ascii_isupper(field.front())) {
        return Value();
      } else {
        return absl::InvalidArgumentError(
            absl::StrCat("template: there is no field '", field, "'"));
      }
    }
    return value;
  }

  Value* FindVariable(absl::string_view name) {
    for (auto it = variables_.rbegin(); it != variables_.rend(); ++it) {
      if (it->first == name) return &it->second;
    }
    return nullptr;
  }

  static absl::Status NoVariable(absl::string_view name) {
    return absl::InvalidArgumentError(absl::StrCat("template: there is no variable '", name, "'"));
  }

  absl::Status Emit(absl::string_view text) {
    if (out_.size() + text.size() > kMaxOutputBytes) {
      return absl::ResourceExhaustedError("template: more than 64 MiB of output");
    }
    absl::StrAppend(&out_, text);
    return absl::OkStatus();
  }

  // A template is the user's own, but a typing error should end, not hang.
  absl::Status CountStep() {
    if (++steps_ > kMaxSteps) return absl::ResourceExhaustedError("template: it does not end");
    return absl::OkStatus();
  }

  std::string out_;
  std::vector<std::pair<std::string, Value>> variables_;
  int64_t steps_ = 0;
};

}  // namespace

Template::Template(std::unique_ptr<internal::Node> root) : root_(std::move(root)) {}
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

absl::StatusOr<Template> Template::Parse(absl::string_view text) {
  ASSIGN_OR_RETURN(std::unique_ptr<internal::Node> root, internal::ParseTemplate(text));
  return Template(std::move(root));
}

absl::StatusOr<std::string> Template::Execute(const Value& data) const {
  Executor executor(data);
  absl::StatusOr<Executor::Flow> flow = executor.RunList(root_->body, data);
  if (!flow.ok()) return flow.status();
  return executor.TakeOutput();
}

}  // namespace gantry::ctl
