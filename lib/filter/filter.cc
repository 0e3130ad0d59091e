#include "lib/filter/filter.h"

#include <re2/re2.h>

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::filter {
namespace {

enum class Operator { kPresent, kEqual, kNotEqual, kMatches };

bool IsFieldByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// Reads one filter from the left. Single-threaded.
class Scanner {
 public:
  explicit Scanner(absl::string_view text) : text_(text) {}

  bool AtEnd() const { return at_ >= text_.size(); }
  bool Take(absl::string_view token) {
    if (AtEnd() || text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }

  absl::Status Error(absl::string_view reason) const {
    return absl::InvalidArgumentError(
        absl::StrCat("parse filter '", EscapeForTerminal(text_), "' at byte ", at_, ": ", reason));
  }

  absl::StatusOr<std::vector<std::string>> TakePath() {
    std::vector<std::string> path;
    do {
      ASSIGN_OR_RETURN(std::string word, TakeWord());
      path.push_back(std::move(word));
    } while (Take("."));
    return path;
  }

  Operator TakeOperator() {
    if (Take("==")) return Operator::kEqual;
    if (Take("!=")) return Operator::kNotEqual;
    if (Take("~=")) return Operator::kMatches;
    return Operator::kPresent;
  }

  absl::StatusOr<std::string> TakeValue(Operator op) {
    if (AtEnd()) return Error("expected a value");
    const char first = text_[at_];
    if (first == '"') return TakeQuoted();
    if (op == Operator::kMatches && (first == '/' || first == '|')) return TakeDelimited(first);
    const size_t begin = at_;
    while (!AtEnd() && text_[at_] != ',' && text_[at_] != ' ' && text_[at_] != '\t' &&
           text_[at_] != '\n') {
      ++at_;
    }
    if (at_ == begin) return Error("expected a value");
    return std::string(text_.substr(begin, at_ - begin));
  }

 private:
  absl::StatusOr<std::string> TakeWord() {
    if (!AtEnd() && text_[at_] == '"') return TakeQuoted();
    const size_t begin = at_;
    while (!AtEnd() && IsFieldByte(text_[at_])) ++at_;
    if (at_ == begin) return Error("expected a field name; quote names with other characters");
    return std::string(text_.substr(begin, at_ - begin));
  }

  absl::StatusOr<std::string> TakeQuoted() {
    const size_t begin = ++at_;
    while (!AtEnd() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
    if (AtEnd()) {
      at_ = text_.size();
      return Error("the quote is not closed");
    }
    std::string value;
    std::string reason;
    if (!absl::CUnescape(text_.substr(begin, at_ - begin), &value, &reason)) return Error(reason);
    ++at_;
    return value;
  }

  // Between slashes or bars a backslash escapes the delimiter only: the rest is the expression's.
  absl::StatusOr<std::string> TakeDelimited(char delimiter) {
    ++at_;
    std::string value;
    while (!AtEnd() && text_[at_] != delimiter) {
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) {
        if (text_[at_ + 1] != delimiter) value.push_back('\\');
        ++at_;
      }
      value.push_back(text_[at_++]);
    }
    if (AtEnd()) return Error("the quote is not closed");
    ++at_;
    return value;
  }

  absl::string_view text_;
  size_t at_ = 0;
};

}  // namespace

struct Filter::Selector {
  std::vector<std::string> path;
  Operator op = Operator::kPresent;
  std::string value;
  std::shared_ptr<const RE2> expression;

  bool Matches(const Fields& fields) const {
    const std::optional<std::string> found = fields(path);
    switch (op) {
      case Operator::kPresent:
        return found.has_value();
      case Operator::kEqual:
        return found.has_value() && *found == value;
      case Operator::kNotEqual:  // An absent field differs from every value, as in containerd.
        return found.value_or("") != value;
      case Operator::kMatches:
        return RE2::PartialMatch(found.value_or(""), *expression);
    }
    return false;
  }
};

std::string JoinPath(const std::vector<std::string>& path, size_t first) {
  if (first >= path.size()) return "";
  return absl::StrJoin(path.begin() + static_cast<ptrdiff_t>(first), path.end(), ".");
}

Filter::Filter() : alternatives_(std::make_shared<std::vector<Alternative>>()) {}

absl::StatusOr<Filter> Filter::Parse(const std::vector<std::string>& filters) {
  if (filters.size() > kMaxFilters) {
    return absl::InvalidArgumentError(absl::StrCat(
        "parse filters: ", filters.size(), " filters; at most ", kMaxFilters, " are allowed"));
  }
  auto alternatives = std::make_shared<std::vector<Alternative>>();
  for (const std::string& text : filters) {
    if (text.empty()) return Filter();
    if (text.size() > kMaxFilterBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "parse filter: ", text.size(), " bytes; at most ", kMaxFilterBytes, " are allowed"));
    }
    Scanner scanner(text);
    Alternative alternative;
    do {
      Selector selector;
      ASSIGN_OR_RETURN(selector.path, scanner.TakePath());
      selector.op = scanner.TakeOperator();
      if (selector.op != Operator::kPresent) {
        ASSIGN_OR_RETURN(selector.value, scanner.TakeValue(selector.op));
      }
      if (selector.op == Operator::kMatches) {
        RE2::Options options;
        options.set_log_errors(false);
        options.set_max_mem(1 << 20);
        auto expression = std::make_shared<RE2>(selector.value, options);
        if (!expression->ok()) {
          return scanner.Error(absl::StrCat("bad expression '", EscapeForTerminal(selector.value),
                                            "': ", expression->error()));
        }
        selector.expression = std::move(expression);
      }
      alternative.push_back(std::move(selector));
    } while (scanner.Take(","));
    if (!scanner.AtEnd()) return scanner.Error("expected ',' or the end");
    alternatives->push_back(std::move(alternative));
  }
  Filter filter;
  filter.alternatives_ = std::move(alternatives);
  return filter;
}

bool Filter::Matches(const Fields& fields) const {
  if (alternatives_->empty()) return true;
  for (const Alternative& alternative : *alternatives_) {
    bool all = true;
    for (const Selector& selector : alternative) {
      if (!selector.Matches(fields)) {
        all = false;
        break;
      }
    }
    if (all) return true;
  }
  return false;
}

bool Filter::matches_everything() const { return alternatives_->empty(); }

}  // namespace gantry::filter
