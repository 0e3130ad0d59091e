#include "ctl/value.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/json/json.h"

namespace gantry::ctl {
namespace {

void AppendQuoted(absl::string_view text, std::string* out) {
  absl::StrAppend(out, "\"", json::Escape(text), "\"");
}

std::string RealToJson(double number) {
  json::Writer writer;
  writer.Write(number);
  return writer.Take();
}

}  // namespace

Value& Value::Add(Value element) {
  elements_.push_back(std::move(element));
  return *this;
}

Value& Value::Set(absl::string_view name, Value value) {
  for (auto& [existing, old] : members_) {
    if (existing == name) {
      old = std::move(value);
      return *this;
    }
  }
  members_.emplace_back(std::string(name), std::move(value));
  return *this;
}

Value& Value::SetHidden(absl::string_view name, Value value) {
  hidden_.emplace_back(std::string(name), std::move(value));
  return *this;
}

const Value* Value::Find(absl::string_view name) const {
  for (const auto* members : {&members_, &hidden_}) {
    for (const auto& [existing, value] : *members) {
      if (existing == name) return &value;
    }
  }
  return nullptr;
}

const Value* Value::FindAnyCase(absl::string_view name) const {
  for (const auto& [member, value] : members_) {
    if (absl::EqualsIgnoreCase(member, name)) return &value;
  }
  return nullptr;
}

void Value::SortMembers() {
  std::sort(members_.begin(), members_.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
}

bool Value::IsTrue() const {
  switch (kind_) {
    case Kind::kNull:
      return false;
    case Kind::kBool:
    case Kind::kInteger:
      return integer_ != 0;
    case Kind::kReal:
      return real_ != 0;
    case Kind::kText:
    case Kind::kList:
    case Kind::kObject:
      return size() != 0;
  }
  return false;
}

size_t Value::size() const {
  switch (kind_) {
    case Kind::kText:
      return text_.size();
    case Kind::kList:
      return elements_.size();
    case Kind::kObject:
      return members_.size();
    default:
      return 0;
  }
}

std::string Value::ToJson() const {
  std::string out;
  switch (kind_) {
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return integer_ != 0 ? "true" : "false";
    case Kind::kInteger:
      return absl::StrCat(integer_);
    case Kind::kReal:
      return RealToJson(real_);
    case Kind::kText:
      AppendQuoted(text_, &out);
      return out;
    case Kind::kList:
      out = "[";
      for (const Value& element : elements_) {
        absl::StrAppend(&out, out.size() > 1 ? "," : "", element.ToJson());
      }
      return out + "]";
    case Kind::kObject:
      out = "{";
      for (const auto& [name, value] : members_) {
        if (out.size() > 1) out += ",";
        AppendQuoted(name, &out);
        absl::StrAppend(&out, ":", value.ToJson());
      }
      return out + "}";
  }
  return out;
}

void Value::AppendIndented(int level, std::string* out) const {
  const bool list = kind_ == Kind::kList;
  if ((!list && kind_ != Kind::kObject) || size() == 0) {
    absl::StrAppend(out, ToJson());
    return;
  }
  const std::string indent(4 * static_cast<size_t>(level + 1), ' ');
  out->push_back(list ? '[' : '{');
  for (size_t i = 0; i < size(); ++i) {
    absl::StrAppend(out, i > 0 ? "," : "", "\n", indent);
    if (list) {
      elements_[i].AppendIndented(level + 1, out);
    } else {
      AppendQuoted(members_[i].first, out);
      absl::StrAppend(out, ": ");
      members_[i].second.AppendIndented(level + 1, out);
    }
  }
  absl::StrAppend(out, "\n", std::string(4 * static_cast<size_t>(level), ' '), list ? "]" : "}");
}

std::string Value::ToIndentedJson() const {
  std::string out;
  AppendIndented(0, &out);
  return out;
}

std::string Value::ToText() const {
  std::string out;
  switch (kind_) {
    case Kind::kNull:
      return "<no value>";
    case Kind::kText:
      return text_;
    case Kind::kList:
      for (const Value& element : elements_) {
        absl::StrAppend(&out, out.empty() ? "[" : " ", element.ToText());
      }
      return out.empty() ? "[]" : out + "]";
    case Kind::kObject:
      for (const auto& [name, value] : members_) {
        absl::StrAppend(&out, out.empty() ? "map[" : " ", name, ":", value.ToText());
      }
      return out.empty() ? "map[]" : out + "]";
    default:
      return ToJson();
  }
}

bool operator==(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return a.real() == b.real();
  return a.kind_ == b.kind_ && a.integer_ == b.integer_ && a.text_ == b.text_ &&
         a.elements_ == b.elements_ && a.members_ == b.members_;
}

}  // namespace gantry::ctl
