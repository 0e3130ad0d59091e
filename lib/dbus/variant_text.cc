#include "lib/dbus/variant_text.h"

#include <string.h>

#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"

namespace gantry::dbus {
namespace {

constexpr size_t kMaxTextBytes = 64 << 10;
constexpr int kMaxDepth = 32;

struct TypeName {
  absl::string_view name, signature;
};
constexpr TypeName kTypeNames[] = {
    {"boolean", "b"}, {"byte", "y"},       {"int16", "n"},    {"uint16", "q"}, {"int32", "i"},
    {"uint32", "u"},  {"handle", "h"},     {"int64", "x"},    {"uint64", "t"}, {"double", "d"},
    {"string", "s"},  {"objectpath", "o"}, {"signature", "g"}};

// Whether `number` may be of an integer `type`; `negative` numbers are two's complement.
bool Fits(char type, uint64_t number, bool negative) {
  const auto signed_fits = [&](int64_t lowest, uint64_t highest) {
    return negative ? static_cast<int64_t>(number) >= lowest && static_cast<int64_t>(number) <= 0
                    : number <= highest;
  };
  switch (type) {
    case 'y':
      return !negative && number <= UINT8_MAX;
    case 'q':
      return !negative && number <= UINT16_MAX;
    case 'u':
    case 'h':
      return !negative && number <= UINT32_MAX;
    case 't':
      return !negative;
    case 'n':
      return signed_fits(INT16_MIN, INT16_MAX);
    case 'i':
      return signed_fits(INT32_MIN, INT32_MAX);
    default:
      return signed_fits(INT64_MIN, INT64_MAX);
  }
}

class Parser {
 public:
  explicit Parser(absl::string_view text) : text_(text) {}

  absl::StatusOr<Value> Parse() {
    ASSIGN_OR_RETURN(Value value, ParseValue("", 0));
    SkipSpace();
    if (at_ != text_.size()) return Wrong("something follows the value");
    return value;
  }

 private:
  absl::Status Wrong(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("at byte ", at_, ": ", what));
  }
  void SkipSpace() {
    while (at_ < text_.size() && absl::ascii_isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  bool Consume(char wanted) {
    SkipSpace();
    if (at_ >= text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  // `expected` is a signature that the value has to have, or empty.
  absl::StatusOr<Value> ParseValue(absl::string_view expected, int depth);
  absl::StatusOr<Value> ParseTyped(int depth);
  absl::StatusOr<Value> ParseWord(absl::string_view expected, int depth);
  absl::StatusOr<Value> ParseString(absl::string_view expected);
  absl::StatusOr<std::string> ParseQuoted();
  absl::Status ParseEscape(std::string* out);
  absl::StatusOr<Value> ParseNumber(absl::string_view expected);
  absl::StatusOr<Value> ParseArray(absl::string_view expected, int depth);
  absl::StatusOr<Value> ParseTuple(absl::string_view expected, int depth);
  absl::StatusOr<Value> ParseDictionary(absl::string_view expected, int depth);

  absl::string_view text_;
  size_t at_ = 0;
};

absl::StatusOr<Value> Parser::ParseValue(absl::string_view expected, int depth) {
  if (depth > kMaxDepth) return Wrong("nested too deep");
  SkipSpace();
  if (at_ >= text_.size()) return Wrong("a value is missing");
  absl::StatusOr<Value> value = Wrong("no value begins like this");
  const char first = text_[at_];
  if (first == '@') {
    value = ParseTyped(depth);
  } else if (first == '\'' || first == '"') {
    value = ParseString(expected);
  } else if (first == 'b' && at_ + 1 < text_.size() && absl::StrContains("'\"", text_[at_ + 1])) {
    ++at_;
    ASSIGN_OR_RETURN(std::string bytes, ParseQuoted());
    value = Value::Bytes(bytes + '\0');  // A bytestring ends in a zero byte.
  } else if (first == '[') {
    value = ParseArray(expected, depth);
  } else if (first == '(') {
    value = ParseTuple(expected, depth);
  } else if (first == '{') {
    value = ParseDictionary(expected, depth);
  } else if (first == '<') {
    ++at_;
    ASSIGN_OR_RETURN(Value inner, ParseValue("", depth + 1));
    if (!Consume('>')) return Wrong("a variant has no '>'");
    value = Value::Variant(std::move(inner));
  } else if (absl::ascii_isalpha(static_cast<unsigned char>(first))) {
    value = ParseWord(expected, depth);
  } else if (absl::ascii_isdigit(static_cast<unsigned char>(first)) ||
             absl::StrContains("+-.", first)) {
    value = ParseNumber(expected);
  }
  RETURN_IF_ERROR(value.status());
  if (!expected.empty() && value->signature != expected) {
    return Wrong(
        absl::StrCat("a value of type '", value->signature, "' where '", expected, "' is needed"));
  }
  return value;
}

absl::StatusOr<Value> Parser::ParseTyped(int depth) {
  const size_t begin = ++at_;
  while (at_ < text_.size() && absl::StrContains("ybnqiuxtdsoghv()a{}", text_[at_])) ++at_;
  const absl::string_view signature = text_.substr(begin, at_ - begin);
  if (signature.empty() || !CheckSignature(signature).ok() ||
      FirstTypeLength(signature) != signature.size()) {
    return Wrong("'@' is not followed by one type");
  }
  return ParseValue(signature, depth + 1);
}

absl::StatusOr<Value> Parser::ParseWord(absl::string_view expected, int depth) {
  const size_t begin = at_;
  while (at_ < text_.size() && absl::ascii_isalnum(static_cast<unsigned char>(text_[at_]))) ++at_;
  const absl::string_view word = text_.substr(begin, at_ - begin);
  if (word == "true" || word == "false") return Value::Bool(word == "true");
  if (word == "inf" || word == "nan") {
    at_ = begin;
    return ParseNumber(expected);
  }
  for (const TypeName& type : kTypeNames) {
    if (word == type.name) return ParseValue(type.signature, depth + 1);
  }
  return Wrong(absl::StrCat("'", word.substr(0, 32), "' is neither a value nor a type"));
}

absl::Status Parser::ParseEscape(std::string* out) {
  static constexpr absl::string_view kFrom = "abfnrtv", kTo = "\a\b\f\n\r\t\v";
  const char letter = text_[at_++];
  if (absl::StrContains("uU01234567", letter)) {
    return Wrong("escapes by number are not supported; write the character itself");
  }
  const size_t known = kFrom.find(letter);
  out->push_back(known == absl::string_view::npos ? letter : kTo[known]);
  return absl::OkStatus();
}

absl::StatusOr<std::string> Parser::ParseQuoted() {
  const char quote = text_[at_++];
  std::string out;
  while (at_ < text_.size() && text_[at_] != quote) {
    if (text_[at_] == '\0') return Wrong("a string holds a zero byte");
    if (text_[at_] != '\\') {
      out.push_back(text_[at_++]);
      continue;
    }
    if (++at_ >= text_.size()) break;
    RETURN_IF_ERROR(ParseEscape(&out));
  }
  if (at_ >= text_.size()) return Wrong("a string has no end");
  ++at_;
  return out;
}

absl::StatusOr<Value> Parser::ParseString(absl::string_view expected) {
  ASSIGN_OR_RETURN(std::string text, ParseQuoted());
  Value value = Value::String(text);
  if (expected == "o" || expected == "g") value.signature = std::string(expected);
  if (expected == "o" && !IsObjectPath(text)) return Wrong("not an object path");
  if (expected == "g" && !CheckSignature(text).ok()) return Wrong("not a signature");
  // What the wire could not carry is refused here, where its place can be named.
  std::string wire;
  Append(value, wire);
  size_t read = 0;
  if (!Read(wire, value.signature, &read).ok()) return Wrong("a string is not UTF-8");
  return value;
}

absl::StatusOr<Value> Parser::ParseNumber(absl::string_view expected) {
  const size_t begin = at_;
  while (at_ < text_.size() && (absl::ascii_isalnum(static_cast<unsigned char>(text_[at_])) ||
                                absl::StrContains("+-.", text_[at_]))) {
    ++at_;
  }
  absl::string_view word = text_.substr(begin, at_ - begin);
  const bool hexadecimal = absl::StrContains(word, "0x") || absl::StrContains(word, "0X");
  const bool fraction = !hexadecimal && word.find_first_of(".eEn") != absl::string_view::npos;
  if (expected == "d" || (expected.empty() && fraction)) {
    double number = 0;
    if (!absl::SimpleAtod(word, &number)) return Wrong("not a number");
    Value value{.signature = "d"};
    memcpy(&value.number, &number, sizeof number);
    return value;
  }
  const char type = expected.empty() ? 'i' : expected[0];
  if (expected.size() > 1 || !absl::StrContains("ybnqiuxth", type) || type == 'b') {
    return Wrong(absl::StrCat("a number where '", expected, "' is needed"));
  }
  const bool negative = absl::ConsumePrefix(&word, "-");
  if (!negative) absl::ConsumePrefix(&word, "+");
  uint64_t number = 0;
  const bool read =
      hexadecimal ? absl::SimpleHexAtoi(word, &number) : absl::SimpleAtoi(word, &number);
  if (!read || word.empty() || absl::StrContains("+-", word[0])) return Wrong("not a number");
  if (negative) number = 0 - number;
  if (!Fits(type, number, negative))
    return Wrong(absl::StrCat("does not fit into type '", absl::string_view(&type, 1), "'"));
  return Value{.signature = std::string(1, type), .number = number};
}

absl::StatusOr<Value> Parser::ParseArray(absl::string_view expected, int depth) {
  ++at_;
  std::string element(absl::StartsWith(expected, "a") ? expected.substr(1) : "");
  std::vector<Value> elements;
  while (!Consume(']')) {
    if (!elements.empty() && !Consume(',')) return Wrong("a ',' or ']' is missing");
    ASSIGN_OR_RETURN(Value value, ParseValue(element, depth + 1));
    element = value.signature;
    elements.push_back(std::move(value));
  }
  if (element.empty()) return Wrong("an empty array needs its type in front, such as '@as []'");
  Value value = Value::Array(element, std::move(elements));
  if (element == "y") {
    for (const Value& byte : value.members) value.text.push_back(static_cast<char>(byte.number));
    value.members.clear();
  }
  if (!CheckSignature(value.signature).ok()) return Wrong("nested too deep");
  return value;
}

absl::StatusOr<Value> Parser::ParseTuple(absl::string_view expected, int depth) {
  ++at_;
  absl::string_view rest = absl::StartsWith(expected, "(") ? expected.substr(1) : "";
  std::vector<Value> members;
  while (!Consume(')')) {
    if (!members.empty()) {
      if (!Consume(',')) return Wrong("a ',' or ')' is missing");
      if (members.size() == 1 && Consume(')')) break;  // A tuple of one is written "(1,)".
    }
    const absl::string_view type =
        rest.empty() || rest == ")" ? "" : rest.substr(0, FirstTypeLength(rest));
    ASSIGN_OR_RETURN(Value member, ParseValue(type, depth + 1));
    rest.remove_prefix(type.size());
    members.push_back(std::move(member));
  }
  if (members.empty()) return Wrong("D-Bus has no empty tuples");
  Value value = Value::Struct(std::move(members));
  if (!CheckSignature(value.signature).ok())
    return Wrong("nested too deep, or of too many members");
  return value;
}

absl::StatusOr<Value> Parser::ParseDictionary(absl::string_view expected, int depth) {
  ++at_;
  std::string key, held;
  if (absl::StartsWith(expected, "a{")) {
    key = std::string(expected.substr(2, 1));
    held = std::string(expected.substr(3, expected.size() - 4));
  }
  std::vector<Value> entries;
  while (!Consume('}')) {
    if (!entries.empty() && !Consume(',')) return Wrong("a ',' or '}' is missing");
    Value entry;
    ASSIGN_OR_RETURN(Value name, ParseValue(key, depth + 1));
    if (!Consume(':')) return Wrong("a ':' is missing");
    ASSIGN_OR_RETURN(Value value, ParseValue(held, depth + 1));
    key = name.signature;
    held = value.signature;
    entry.signature = absl::StrCat("{", key, held, "}");
    entry.members = {std::move(name), std::move(value)};
    entries.push_back(std::move(entry));
  }
  if (key.empty()) return Wrong("an empty dictionary needs its type in front");
  Value value = Value::Array(absl::StrCat("{", key, held, "}"), std::move(entries));
  if (!CheckSignature(value.signature).ok()) return Wrong("not a dictionary that D-Bus can carry");
  return value;
}

}  // namespace

absl::StatusOr<Value> ParseVariantText(absl::string_view text) {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat("longer than ", kMaxTextBytes, " bytes"));
  }
  return Parser(text).Parse();
}

}  // namespace gantry::dbus
