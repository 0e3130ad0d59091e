#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "ctl/template_tree.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::ctl::internal {
namespace {

constexpr int kMaxNesting = 64;

absl::Status Wrong(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("template: ", what));
}

struct Token {
  enum class Kind { kEnd, kWord, kField, kDot, kVariable, kText, kNumber, kSymbol };
  Kind kind = Kind::kEnd;
  std::string text;
  bool after_space = false;  // `.A .B` is two words, `.A.B` is one.
};

bool IsNameByte(char c) {
  return absl::ascii_isalnum(c) || c == '_' || (static_cast<uint8_t>(c) & 0x80) != 0;
}

size_t NameLength(absl::string_view text) {
  size_t length = 0;
  while (length < text.size() && IsNameByte(text[length])) ++length;
  return length;
}

// Length of a quoted string at the start of `text`, quotes included; 0: it does not end.
size_t QuotedLength(absl::string_view text) {
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '\\' && text[0] == '"') {
      ++i;
    } else if (text[i] == text[0]) {
      return i + 1;
    }
  }
  return 0;
}

// The words of one action, `text` being what stands between the braces.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view text) {
  std::vector<Token> tokens;
  bool space = true;
  const auto take = [&](Token::Kind kind, size_t length, absl::string_view value) {
    tokens.push_back({kind, std::string(value), space});
    text.remove_prefix(length);
    space = false;
  };
  while (!text.empty()) {
    const char c = text.front();
    if (absl::ascii_isspace(c)) {
      text.remove_prefix(1);
      space = true;
    } else if (c == '.' && text.size() > 1 && IsNameByte(text[1]) &&
               !absl::ascii_isdigit(text[1])) {
      const size_t length = NameLength(text.substr(1));
      take(Token::Kind::kField, length + 1, text.substr(1, length));
    } else if (c == '.') {
      take(Token::Kind::kDot, 1, ".");
    } else if (c == '$') {
      const size_t length = NameLength(text.substr(1)) + 1;
      take(Token::Kind::kVariable, length, text.substr(0, length));
    } else if (c == '"' || c == '`') {
      const size_t length = QuotedLength(text);
      if (length == 0) return Wrong("a string without its closing quote");
      const absl::string_view inner = text.substr(1, length - 2);
      std::string value(inner);
      std::string problem;
      if (c == '"' && !absl::CUnescape(inner, &value, &problem)) {
        return Wrong(
            absl::StrCat("string ", EscapeForTerminal(text.substr(0, length)), ": ", problem));
      }
      take(Token::Kind::kText, length, value);
    } else if (absl::ascii_isdigit(c) ||
               ((c == '-' || c == '+') && text.size() > 1 && absl::ascii_isdigit(text[1]))) {
      size_t length = 1;
      while (length < text.size() && (IsNameByte(text[length]) || text[length] == '.')) ++length;
      take(Token::Kind::kNumber, length, text.substr(0, length));
    } else if (absl::StartsWith(text, ":=")) {
      take(Token::Kind::kSymbol, 2, ":=");
    } else if (absl::StrContains("()|,=", c)) {
      take(Token::Kind::kSymbol, 1, text.substr(0, 1));
    } else if (IsNameByte(c)) {
      const size_t length = NameLength(text);
      take(Token::Kind::kWord, length, text.substr(0, length));
    } else {
      return Wrong(absl::StrCat("unexpected '", EscapeForTerminal(text.substr(0, 1)), "'"));
    }
  }
  tokens.push_back({Token::Kind::kEnd, "", true});
  return tokens;
}

std::optional<Value> ParseNumber(absl::string_view text) {
  int64_t integer;
  if (absl::SimpleAtoi(text, &integer)) return Value(integer);
  double real;
  if (absl::SimpleAtod(text, &real)) return Value(real);
  return std::nullopt;
}

// Parses the words of one action.
class ActionParser {
 public:
  ActionParser(std::vector<Token> tokens, int nesting)
      : tokens_(std::move(tokens)), nesting_(nesting) {}

  bool AtEnd() const { return Peek().kind == Token::Kind::kEnd; }
  bool TakeWord(absl::string_view word) {
    if (Peek().kind != Token::Kind::kWord || Peek().text != word) return false;
    ++position_;
    return true;
  }

  absl::StatusOr<Pipeline> ParseWholePipeline() {
    ASSIGN_OR_RETURN(Pipeline pipeline, ParsePipeline(nesting_));
    if (!AtEnd()) return Wrong(absl::StrCat("unexpected '", Peek().text, "'"));
    return pipeline;
  }

 private:
  const Token& Peek(size_t ahead = 0) const {
    return tokens_[std::min(position_ + ahead, tokens_.size() - 1)];
  }
  bool IsSymbol(absl::string_view symbol, size_t ahead = 0) const {
    return Peek(ahead).kind == Token::Kind::kSymbol && Peek(ahead).text == symbol;
  }

  absl::StatusOr<Pipeline> ParsePipeline(int nesting) {
    if (nesting > kMaxNesting) return Wrong("nested too deeply");
    Pipeline pipeline;
    ParseVariables(&pipeline);
    do {
      ASSIGN_OR_RETURN(Command command, ParseCommand(nesting));
      pipeline.commands.push_back(std::move(command));
      if (!IsSymbol("|")) break;
      ++position_;
    } while (true);
    return pipeline;
  }

  // `$x :=`, `$x =`, `$k, $v :=`; nothing when the pipeline merely begins with a variable.
  void ParseVariables(Pipeline* pipeline) {
    if (Peek().kind != Token::Kind::kVariable) return;
    size_t ahead = 1;
    const bool pair = IsSymbol(",", 1) && Peek(2).kind == Token::Kind::kVariable;
    if (pair) ahead = 3;
    if (!IsSymbol(":=", ahead) && !IsSymbol("=", ahead)) return;
    pipeline->declares = IsSymbol(":=", ahead);
    pipeline->variables.push_back(Peek().text);
    if (pair) pipeline->variables.push_back(Peek(2).text);
    position_ += ahead + 1;
  }

  absl::StatusOr<Command> ParseCommand(int nesting) {
    Command command;
    while (!AtEnd() && !IsSymbol("|") && !IsSymbol(")")) {
      ASSIGN_OR_RETURN(Operand operand, ParseOperand(nesting));
      command.operands.push_back(std::move(operand));
    }
    if (command.operands.empty()) return Wrong("a command is missing");
    return command;
  }

  absl::StatusOr<Operand> ParseOperand(int nesting) {
    Operand operand;
    const Token token = Peek();
    ++position_;
    switch (token.kind) {
      case Token::Kind::kField:
        operand.fields.push_back(token.text);
        break;
      case Token::Kind::kDot:
        break;
      case Token::Kind::kVariable:
        operand.kind = Operand::Kind::kVariable;
        operand.name = token.text;
        break;
      case Token::Kind::kText:
        operand.kind = Operand::Kind::kLiteral;
        operand.literal = Value(token.text);
        break;
      case Token::Kind::kNumber: {
        std::optional<Value> number = ParseNumber(token.text);
        if (!number) return Wrong(absl::StrCat("'", token.text, "' is not a number"));
        operand.kind = Operand::Kind::kLiteral;
        operand.literal = *std::move(number);
        break;
      }
      case Token::Kind::kWord:
        RETURN_IF_ERROR(ParseWord(token.text, &operand));
        break;
      case Token::Kind::kSymbol: {
        if (token.text != "(") return Wrong(absl::StrCat("unexpected '", token.text, "'"));
        ASSIGN_OR_RETURN(Pipeline pipeline, ParsePipeline(nesting + 1));
        if (!IsSymbol(")")) return Wrong("')' is missing");
        ++position_;
        operand.kind = Operand::Kind::kPipeline;
        operand.pipeline = std::make_unique<Pipeline>(std::move(pipeline));
        break;
      }
      case Token::Kind::kEnd:
        return Wrong("a command is missing");
    }
    while (Peek().kind == Token::Kind::kField && !Peek().after_space) {
      operand.fields.push_back(Peek().text);
      ++position_;
    }
    return operand;
  }

  static absl::Status ParseWord(const std::string& word, Operand* operand) {
    if (word == "true" || word == "false" || word == "nil") {
      operand->kind = Operand::Kind::kLiteral;
      if (word != "nil") operand->literal = Value(word == "true");
      return absl::OkStatus();
    }
    if (!IsTemplateFunction(word)) return Wrong(absl::StrCat("there is no function '", word, "'"));
    operand->kind = Operand::Kind::kFunction;
    operand->name = word;
    return absl::OkStatus();
  }

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int nesting_;
};

// Parses text and actions into lists, up to the {{end}} or {{else}} that closes the list.
class ListParser {
 public:
  explicit ListParser(absl::string_view text) : rest_(text) {}

  // What closed a list: nothing (the end of the text), "end", or "else" with the words after it.
  struct Closing {
    std::string word;
    std::vector<Token> tokens;
  };

  absl::StatusOr<Closing> ParseList(int nesting, bool in_range, std::vector<Node>* nodes) {
    if (nesting > kMaxNesting) return Wrong("nested too deeply");
    while (true) {
      TakeText(nodes);
      if (rest_.empty()) return Closing{};
      ASSIGN_OR_RETURN(std::string action, TakeAction());
      if (absl::StartsWith(action, "/*") && absl::EndsWith(action, "*/")) continue;
      ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(action));
      ActionParser words(tokens, nesting);
      if (words.TakeWord("end")) return Closing{"end", {}};
      if (words.TakeWord("else")) {
        tokens.erase(tokens.begin());
        return Closing{"else", std::move(tokens)};
      }
      Node node;
      if (words.TakeWord("break") || words.TakeWord("continue")) {
        if (!in_range) return Wrong("break and continue belong into a range");
        node.kind = tokens.front().text == "break" ? Node::Kind::kBreak : Node::Kind::kContinue;
      } else if (tokens.front().kind == Token::Kind::kWord && IsBlock(tokens.front().text)) {
        RETURN_IF_ERROR(ParseBlock(std::move(tokens), nesting, in_range, &node));
      } else {
        node.kind = Node::Kind::kAction;
        ASSIGN_OR_RETURN(node.pipeline, words.ParseWholePipeline());
      }
      nodes->push_back(std::move(node));
    }
  }

 private:
  static bool IsBlock(absl::string_view word) {
    return word == "if" || word == "with" || word == "range";
  }

  absl::Status ParseBlock(std::vector<Token> tokens, int nesting, bool in_range, Node* node) {
    const std::string word = tokens.front().text;
    node->kind = word == "if"     ? Node::Kind::kIf
                 : word == "with" ? Node::Kind::kWith
                                  : Node::Kind::kRange;
    tokens.erase(tokens.begin());
    ActionParser words(std::move(tokens), nesting);
    ASSIGN_OR_RETURN(node->pipeline, words.ParseWholePipeline());
    const bool ranges = in_range || node->kind == Node::Kind::kRange;
    ASSIGN_OR_RETURN(Closing closing, ParseList(nesting + 1, ranges, &node->body));
    if (closing.word == "else") {
      if (closing.tokens.size() >
          1) {  // {{else if …}}: a block of its own, closed by the same end.
        if (!IsBlock(closing.tokens.front().text)) return Wrong("unexpected words after else");
        Node inner;
        RETURN_IF_ERROR(ParseBlock(std::move(closing.tokens), nesting + 1, in_range, &inner));
        node->alternative.push_back(std::move(inner));
        return absl::OkStatus();
      }
      ASSIGN_OR_RETURN(closing, ParseList(nesting + 1, in_range, &node->alternative));
    }
    if (closing.word != "end") return Wrong(absl::StrCat("{{", word, "}} without its {{end}}"));
    return absl::OkStatus();
  }

  void TakeText(std::vector<Node>* nodes) {
    const size_t begin = std::min(rest_.find("{{"), rest_.size());
    absl::string_view text = rest_.substr(0, begin);
    rest_.remove_prefix(begin);
    if (trim_next_) text = absl::StripLeadingAsciiWhitespace(text);
    trim_next_ = false;
    if (absl::StartsWith(rest_, "{{-") && rest_.size() > 3 && absl::ascii_isspace(rest_[3])) {
      text = absl::StripTrailingAsciiWhitespace(text);
    }
    if (text.empty()) return;
    Node node;
    node.kind = Node::Kind::kText;
    node.text = std::string(text);
    nodes->push_back(std::move(node));
  }

  // What stands between the braces, without trim marks; rest_ begins with "{{".
  absl::StatusOr<std::string> TakeAction() {
    rest_.remove_prefix(2);
    if (absl::StartsWith(rest_, "-") && rest_.size() > 1 && absl::ascii_isspace(rest_[1])) {
      rest_.remove_prefix(1);
    }
    size_t end = 0;
    while (end < rest_.size() && !absl::StartsWith(rest_.substr(end), "}}")) {
      // Braces inside of strings close nothing.
      const size_t quoted =
          rest_[end] == '"' || rest_[end] == '`' ? QuotedLength(rest_.substr(end)) : 0;
      end += quoted > 0 ? quoted : 1;
    }
    if (end >= rest_.size()) return Wrong("'{{' without its '}}'");
    absl::string_view action = rest_.substr(0, end);
    rest_.remove_prefix(end + 2);
    if (absl::EndsWith(action, "-") && action.size() > 1 &&
        absl::ascii_isspace(action[action.size() - 2])) {
      action.remove_suffix(1);
      trim_next_ = true;
    }
    return std::string(absl::StripAsciiWhitespace(action));
  }

  absl::string_view rest_;
  bool trim_next_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Node>> ParseTemplate(absl::string_view text) {
  auto root = std::make_unique<Node>();
  ListParser parser(text);
  ASSIGN_OR_RETURN(ListParser::Closing closing, parser.ParseList(0, false, &root->body));
  if (!closing.word.empty()) return Wrong(absl::StrCat("unexpected {{", closing.word, "}}"));
  return root;
}

}  // namespace gantry::ctl::internal
