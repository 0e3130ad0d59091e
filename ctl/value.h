// A tree of values: what a list row or an inspected object says, ready to be printed as JSON or to
// be picked from by a template (--format).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace gantry::ctl {

// Null, bool, integer, real, text, list or object. Objects keep the order of insertion, since
// people compare our JSON with Docker's by eye. Copyable. Thread-compatible.
class Value {
 public:
  enum class Kind { kNull, kBool, kInteger, kReal, kText, kList, kObject };

  Value() = default;
  Value(bool truth) : kind_(Kind::kBool), integer_(truth) {}          // NOLINT: implicit on
  Value(int number) : kind_(Kind::kInteger), integer_(number) {}      // purpose, so that rows read
  Value(int64_t number) : kind_(Kind::kInteger), integer_(number) {}  // like literals.
  Value(uint32_t number) : kind_(Kind::kInteger), integer_(number) {}
  Value(uint64_t number) : kind_(Kind::kInteger), integer_(static_cast<int64_t>(number)) {}
  Value(double number) : kind_(Kind::kReal), real_(number) {}
  Value(const char* text) : kind_(Kind::kText), text_(text) {}
  Value(absl::string_view text) : kind_(Kind::kText), text_(text) {}
  Value(std::string text) : kind_(Kind::kText), text_(std::move(text)) {}

  static Value List() { return OfKind(Kind::kList); }
  static Value Object() { return OfKind(Kind::kObject); }
  // Strings, or anything else a Value is made from.
  template <typename Range>
  static Value ListOf(const Range& range) {
    Value list = List();
    for (const auto& element : range) list.Add(Value(element));
    return list;
  }
  // A string map, by key.
  template <typename Map>
  static Value MapOf(const Map& map) {
    Value object = Object();
    for (const auto& [key, value] : map) object.Set(key, Value(value));
    object.SortMembers();
    return object;
  }

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::kNull; }
  bool is_text() const { return kind_ == Kind::kText; }
  bool is_list() const { return kind_ == Kind::kList; }
  bool is_object() const { return kind_ == Kind::kObject; }
  bool is_number() const { return kind_ == Kind::kInteger || kind_ == Kind::kReal; }

  const std::string& text() const { return text_; }
  int64_t integer() const { return integer_; }
  double real() const { return kind_ == Kind::kReal ? real_ : static_cast<double>(integer_); }
  const std::vector<Value>& elements() const { return elements_; }
  const std::vector<std::pair<std::string, Value>>& members() const { return members_; }

  // Appends to a list.
  Value& Add(Value element);
  // Adds a member, or replaces the one of that name. Returns the object, for chains.
  Value& Set(absl::string_view name, Value value);
  // The same for a member that templates find and JSON leaves out.
  Value& SetHidden(absl::string_view name, Value value);
  // The member of that name, hidden or not; nullptr when there is none.
  const Value* Find(absl::string_view name) const;
  // The same whatever the case of its letters; the first one.
  const Value* FindAnyCase(absl::string_view name) const;
  void SortMembers();

  // Go's idea of truth in templates: not false, 0, "", empty or null.
  bool IsTrue() const;
  // Characters of a text (bytes), elements or members.
  size_t size() const;

  // Compact, members in order.
  std::string ToJson() const;
  // With four spaces of indentation, as `docker inspect` prints.
  std::string ToIndentedJson() const;
  // As Go's fmt prints it: "[a b]", "map[k:v]", "<no value>" for null.
  std::string ToText() const;

  friend bool operator==(const Value& a, const Value& b);

 private:
  static Value OfKind(Kind kind) {
    Value value;
    value.kind_ = kind;
    return value;
  }
  void AppendIndented(int level, std::string* out) const;

  Kind kind_ = Kind::kNull;
  int64_t integer_ = 0;
  double real_ = 0;
  std::string text_;
  std::vector<Value> elements_;
  std::vector<std::pair<std::string, Value>> members_;
  std::vector<std::pair<std::string, Value>> hidden_;
};

}  // namespace gantry::ctl
