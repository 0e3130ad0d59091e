#include "ctl/template_functions.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "ctl/template_tree.h"
#include "lib/base/status.h"
#include "lib/json/json.h"

namespace gantry::ctl::internal {
namespace {

using Arguments = std::vector<Value>;
using Function = absl::StatusOr<Value> (*)(const Arguments&);

// Widths in printf and pad; more is a typing error, not a wish.
constexpr int64_t kMaxWidth = 4096;

absl::Status Wrong(absl::string_view what) { return absl::InvalidArgumentError(what); }

// -1, 0 or 1; nothing when the two cannot be ordered.
std::optional<int> Compare(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    return a.real() < b.real() ? -1 : a.real() > b.real() ? 1 : 0;
  }
  if (a.is_text() && b.is_text()) {
    return a.text() < b.text() ? -1 : a.text() > b.text() ? 1 : 0;
  }
  return std::nullopt;
}

absl::StatusOr<int> Order(const Arguments& arguments) {
  std::optional<int> order = Compare(arguments[0], arguments[1]);
  if (!order) return Wrong("values of different kinds have no order");
  return *order;
}

absl::StatusOr<Value> And(const Arguments& arguments) {
  for (const Value& value : arguments) {
    if (!value.IsTrue()) return value;
  }
  return arguments.back();
}

absl::StatusOr<Value> Or(const Arguments& arguments) {
  for (const Value& value : arguments) {
    if (value.IsTrue()) return value;
  }
  return arguments.back();
}

absl::StatusOr<Value> Eq(const Arguments& arguments) {
  for (size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[0] == arguments[i]) return Value(true);
  }
  return Value(false);
}

absl::StatusOr<Value> Less(const Arguments& arguments) {
  ASSIGN_OR_RETURN(int order, Order(arguments));
  return Value(order < 0);
}
absl::StatusOr<Value> LessOrEqual(const Arguments& arguments) {
  ASSIGN_OR_RETURN(int order, Order(arguments));
  return Value(order <= 0);
}
absl::StatusOr<Value> Greater(const Arguments& arguments) {
  ASSIGN_OR_RETURN(int order, Order(arguments));
  return Value(order > 0);
}
absl::StatusOr<Value> GreaterOrEqual(const Arguments& arguments) {
  ASSIGN_OR_RETURN(int order, Order(arguments));
  return Value(order >= 0);
}

absl::StatusOr<Value> Length(const Arguments& arguments) {
  const Value& value = arguments[0];
  if (!value.is_text() && !value.is_list() && !value.is_object()) {
    return Wrong("only texts, lists and maps have a length");
  }
  return Value(static_cast<int64_t>(value.size()));
}

absl::StatusOr<Value> Index(const Arguments& arguments) {
  Value value = arguments[0];
  for (size_t i = 1; i < arguments.size(); ++i) {
    const Value& key = arguments[i];
    if (value.is_object()) {
      const Value* member = value.Find(key.ToText());
      // As in Go, the zero value for a key that is not there; most maps hold text.
      Value found = member != nullptr ? *member : Value("");
      value = std::move(found);
    } else if (value.is_list()) {
      if (key.kind() != Value::Kind::kInteger || key.integer() < 0 ||
          static_cast<size_t>(key.integer()) >= value.size()) {
        return Wrong(
            absl::StrCat("there is no element ", key.ToText(), " in a list of ", value.size()));
      }
      Value found = value.elements()[static_cast<size_t>(key.integer())];
      value = std::move(found);
    } else {
      return Wrong("only lists and maps have elements");
    }
  }
  return value;
}

absl::StatusOr<Value> Slice(const Arguments& arguments) {
  const Value& value = arguments[0];
  if (!value.is_text() && !value.is_list()) return Wrong("only texts and lists have parts");
  int64_t bounds[2] = {0, static_cast<int64_t>(value.size())};
  for (size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i].kind() != Value::Kind::kInteger)
      return Wrong("a bound must be a whole number");
    bounds[i - 1] = arguments[i].integer();
  }
  if (bounds[0] < 0 || bounds[1] < bounds[0] || bounds[1] > static_cast<int64_t>(value.size())) {
    return Wrong("a bound is out of range");
  }
  const auto begin = static_cast<size_t>(bounds[0]);
  const auto end = static_cast<size_t>(bounds[1]);
  if (value.is_text()) return Value(value.text().substr(begin, end - begin));
  Value part = Value::List();
  for (size_t i = begin; i < end; ++i) part.Add(value.elements()[i]);
  return part;
}

absl::StatusOr<Value> Print(const Arguments& arguments) {
  std::string out;
  for (size_t i = 0; i < arguments.size(); ++i) {
    // Go separates two values unless one of them is text.
    const bool space = i > 0 && !arguments[i].is_text() && !arguments[i - 1].is_text();
    absl::StrAppend(&out, space ? " " : "", arguments[i].ToText());
  }
  return Value(std::move(out));
}

absl::StatusOr<Value> PrintLine(const Arguments& arguments) {
  std::vector<std::string> texts;
  for (const Value& value : arguments) texts.push_back(value.ToText());
  return Value(absl::StrCat(absl::StrJoin(texts, " "), "\n"));
}

// One verb of printf without flags and width.
absl::StatusOr<std::string> FormatVerb(char verb, int precision, const Value& value) {
  switch (verb) {
    case 's':
    case 'v':
    case 'd':
    case 't': {
      std::string text = value.ToText();
      if (verb == 's' && precision >= 0) text.resize(std::min<size_t>(text.size(), precision));
      return text;
    }
    case 'q':
      return absl::StrCat("\"", json::Escape(value.ToText()), "\"");
    case 'f':
      return absl::StrFormat("%.*f", precision < 0 ? 6 : precision, value.real());
    case 'x': {
      if (!value.is_text()) return absl::StrFormat("%x", value.integer());
      std::string hex;
      for (const char c : value.text())
        absl::StrAppendFormat(&hex, "%02x", static_cast<uint8_t>(c));
      return hex;
    }
    default:
      return Wrong(absl::StrCat("printf does not know '%", std::string(1, verb), "'"));
  }
}

absl::StatusOr<Value> PrintFormatted(const Arguments& arguments) {
  const std::string& format = arguments[0].text();
  if (!arguments[0].is_text()) return Wrong("printf wants a text first");
  std::string out;
  size_t next = 1;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out.push_back(format[i]);
      continue;
    }
    if (++i < format.size() && format[i] == '%') {
      out.push_back('%');
      continue;
    }
    bool left = false;
    bool zero = false;
    for (; i < format.size() && (format[i] == '-' || format[i] == '0' || format[i] == '+'); ++i) {
      left = left || format[i] == '-';
      zero = zero || format[i] == '0';
    }
    const auto number = [&] {
      int64_t value = 0;
      for (; i < format.size() && absl::ascii_isdigit(format[i]); ++i) {
        value = std::min<int64_t>(value * 10 + (format[i] - '0'), kMaxWidth);
      }
      return static_cast<int>(value);
    };
    const int width = number();
    int precision = -1;
    if (i < format.size() && format[i] == '.') {
      ++i;
      precision = std::min(number(), 64);
    }
    if (i >= format.size()) return Wrong("printf: the text ends after '%'");
    if (next >= arguments.size()) return Wrong("printf has more verbs than values");
    ASSIGN_OR_RETURN(std::string text, FormatVerb(format[i], precision, arguments[next++]));
    if (text.size() < static_cast<size_t>(width)) {
      const size_t missing = static_cast<size_t>(width) - text.size();
      if (left) {
        text.append(missing, ' ');
      } else {
        text.insert(0, missing, zero && format[i] == 'd' ? '0' : ' ');
      }
    }
    out += text;
  }
  return Value(std::move(out));
}

absl::StatusOr<Value> Json(const Arguments& arguments) { return Value(arguments[0].ToJson()); }

absl::StatusOr<Value> Join(const Arguments& arguments) {
  if (!arguments[0].is_list()) return Wrong("join wants a list first");
  std::vector<std::string> texts;
  for (const Value& element : arguments[0].elements()) texts.push_back(element.ToText());
  return Value(absl::StrJoin(texts, arguments[1].ToText()));
}

absl::StatusOr<Value> Split(const Arguments& arguments) {
  if (arguments[1].text().empty()) return Wrong("split wants a separator that is not empty");
  std::vector<std::string> parts = absl::StrSplit(arguments[0].ToText(), arguments[1].text());
  return Value::ListOf(parts);
}

absl::StatusOr<Value> Lower(const Arguments& arguments) {
  return Value(absl::AsciiStrToLower(arguments[0].ToText()));
}
absl::StatusOr<Value> Upper(const Arguments& arguments) {
  return Value(absl::AsciiStrToUpper(arguments[0].ToText()));
}

absl::StatusOr<Value> Title(const Arguments& arguments) {
  std::string text = arguments[0].ToText();
  bool start = true;
  for (char& c : text) {
    if (start) c = absl::ascii_toupper(c);
    start = absl::ascii_isspace(c);
  }
  return Value(std::move(text));
}

absl::StatusOr<Value> Pad(const Arguments& arguments) {
  const int64_t before = arguments[1].integer();
  const int64_t after = arguments[2].integer();
  const std::string text = arguments[0].ToText();
  if (before < 0 || after < 0 || before > kMaxWidth || after > kMaxWidth) {
    return Wrong("pad: a width is out of range");
  }
  if (text.empty()) return Value(text);
  return Value(absl::StrCat(std::string(static_cast<size_t>(before), ' '), text,
                            std::string(static_cast<size_t>(after), ' ')));
}

absl::StatusOr<Value> Truncate(const Arguments& arguments) {
  const std::string text = arguments[0].ToText();
  const int64_t length = arguments[1].integer();
  if (length < 0) return Wrong("truncate: the length is below zero");
  return Value(text.substr(0, std::min(text.size(), static_cast<size_t>(length))));
}

struct Entry {
  const char* name;
  size_t least;
  size_t most;
  Function function;
};

constexpr size_t kAny = SIZE_MAX;
constexpr Entry kFunctions[] = {
    {"and", 1, kAny, And},
    {"or", 1, kAny, Or},
    {"not", 1, 1,
     [](const Arguments& a) -> absl::StatusOr<Value> { return Value(!a[0].IsTrue()); }},
    {"eq", 2, kAny, Eq},
    {"ne", 2, 2,
     [](const Arguments& a) -> absl::StatusOr<Value> { return Value(!(a[0] == a[1])); }},
    {"lt", 2, 2, Less},
    {"le", 2, 2, LessOrEqual},
    {"gt", 2, 2, Greater},
    {"ge", 2, 2, GreaterOrEqual},
    {"len", 1, 1, Length},
    {"index", 1, kAny, Index},
    {"slice", 1, 3, Slice},
    {"print", 0, kAny, Print},
    {"println", 0, kAny, PrintLine},
    {"printf", 1, kAny, PrintFormatted},
    {"json", 1, 1, Json},
    {"join", 2, 2, Join},
    {"split", 2, 2, Split},
    {"lower", 1, 1, Lower},
    {"upper", 1, 1, Upper},
    {"title", 1, 1, Title},
    {"pad", 3, 3, Pad},
    {"truncate", 2, 2, Truncate},
};

const Entry* FindFunction(absl::string_view name) {
  for (const Entry& entry : kFunctions) {
    if (name == entry.name) return &entry;
  }
  return nullptr;
}

}  // namespace

bool IsTemplateFunction(absl::string_view name) { return FindFunction(name) != nullptr; }

absl::StatusOr<Value> CallTemplateFunction(absl::string_view name,
                                           const std::vector<Value>& arguments) {
  const Entry* entry = FindFunction(name);
  if (entry == nullptr) return Wrong(absl::StrCat("there is no function '", name, "'"));
  if (arguments.size() < entry->least || arguments.size() > entry->most) {
    return Wrong(
        absl::StrCat("template: ", name, " does not take ", arguments.size(), " arguments"));
  }
  return Annotate(entry->function(arguments), absl::StrCat("template: ", name));
}

}  // namespace gantry::ctl::internal
