#include "lib/json/json.h"

#include <algorithm>
#include <limits>

#define RAPIDJSON_ASSERT(condition) ((condition) ? (void)0 : __builtin_trap())
#include "absl/strings/str_cat.h"
#include "lib/base/text.h"
#include "rapidjson/document.h"
#include "rapidjson/error/en.h"
#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace gantry::json {
namespace internal {

class Tree {
 public:
  rapidjson::Document document;
};

}  // namespace internal

namespace {

using Node = rapidjson::Value;

const Node& NullNode() {
  static const Node null;
  return null;
}

const Node& Deref(const void* node) {
  return node == nullptr ? NullNode() : *static_cast<const Node*>(node);
}

absl::string_view Text(const Node& node) { return {node.GetString(), node.GetStringLength()}; }

// Builds the document and stops the parser, which recurses, at the depth limit.
class DepthGuard {
 public:
  explicit DepthGuard(rapidjson::Document& target) : target_(target) {}

  bool too_deep() const { return too_deep_; }

  bool Null() { return target_.Null(); }
  bool Bool(bool value) { return target_.Bool(value); }
  bool Int(int value) { return target_.Int(value); }
  bool Uint(unsigned value) { return target_.Uint(value); }
  bool Int64(int64_t value) { return target_.Int64(value); }
  bool Uint64(uint64_t value) { return target_.Uint64(value); }
  bool Double(double value) { return target_.Double(value); }
  bool RawNumber(const char* text, rapidjson::SizeType size, bool copy) {
    return target_.RawNumber(text, size, copy);
  }
  bool String(const char* text, rapidjson::SizeType size, bool copy) {
    return target_.String(text, size, copy);
  }
  bool Key(const char* text, rapidjson::SizeType size, bool copy) {
    return target_.Key(text, size, copy);
  }
  bool StartObject() { return Enter() && target_.StartObject(); }
  bool EndObject(rapidjson::SizeType members) {
    --depth_;
    return target_.EndObject(members);
  }
  bool StartArray() { return Enter() && target_.StartArray(); }
  bool EndArray(rapidjson::SizeType elements) {
    --depth_;
    return target_.EndArray(elements);
  }

 private:
  bool Enter() {
    if (++depth_ <= kMaxDepth) return true;
    too_deep_ = true;
    return false;
  }

  rapidjson::Document& target_;
  size_t depth_ = 0;
  bool too_deep_ = false;
};

std::string Join(const std::string& parent, absl::string_view key) {
  return parent.empty() ? std::string(key) : absl::StrCat(parent, ".", key);
}

// Path of `wanted` below `node`, or nothing when it is not there.
std::optional<std::string> FindPath(const Node& node, const void* wanted, const std::string& path) {
  if (&node == wanted) return path;
  if (node.IsObject()) {
    for (const auto& member : node.GetObject()) {
      auto found = FindPath(member.value, wanted, Join(path, EscapeForTerminal(Text(member.name))));
      if (found) return found;
    }
  } else if (node.IsArray()) {
    for (rapidjson::SizeType i = 0; i < node.Size(); ++i) {
      auto found = FindPath(node[i], wanted, absl::StrCat(path, "[", i, "]"));
      if (found) return found;
    }
  }
  return std::nullopt;
}

// First object in document order that has a key twice; Go would silently take the last one.
absl::Status CheckDuplicates(const Node& node, const std::string& path) {
  if (node.IsArray()) {
    for (rapidjson::SizeType i = 0; i < node.Size(); ++i) {
      if (!node[i].IsObject() && !node[i].IsArray()) continue;
      RETURN_IF_ERROR(CheckDuplicates(node[i], absl::StrCat(path, "[", i, "]")));
    }
    return absl::OkStatus();
  }
  if (!node.IsObject()) return absl::OkStatus();
  std::vector<absl::string_view> names;
  names.reserve(node.MemberCount());
  for (const auto& member : node.GetObject()) names.push_back(Text(member.name));
  std::sort(names.begin(), names.end());
  auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin != names.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Join(path, EscapeForTerminal(*twin)), ": the key appears twice"));
  }
  for (const auto& member : node.GetObject()) {
    if (!member.value.IsObject() && !member.value.IsArray()) continue;
    RETURN_IF_ERROR(
        CheckDuplicates(member.value, Join(path, EscapeForTerminal(Text(member.name)))));
  }
  return absl::OkStatus();
}

std::string PositionOf(absl::string_view bytes, size_t offset) {
  const absl::string_view before = bytes.substr(0, offset);
  const size_t line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t newline = before.rfind('\n');
  const size_t column = offset - (newline == absl::string_view::npos ? 0 : newline + 1) + 1;
  return absl::StrCat("line ", line, ", column ", column);
}

template <typename Number>
std::string Range() {
  return absl::StrCat("an integer from ", std::numeric_limits<Number>::min(), " to ",
                      std::numeric_limits<Number>::max());
}

}  // namespace

bool Value::is_null() const { return Deref(node_).IsNull(); }
bool Value::is_object() const { return Deref(node_).IsObject(); }
bool Value::is_array() const { return Deref(node_).IsArray(); }
bool Value::is_string() const { return Deref(node_).IsString(); }
bool Value::is_bool() const { return Deref(node_).IsBool(); }
bool Value::is_number() const { return Deref(node_).IsNumber(); }

size_t Value::size() const {
  const Node& node = Deref(node_);
  if (node.IsArray()) return node.Size();
  if (node.IsObject()) return node.MemberCount();
  return 0;
}

std::optional<Value> Value::Find(absl::string_view key) const {
  const Node& node = Deref(node_);
  if (!node.IsObject()) return std::nullopt;
  for (const auto& member : node.GetObject()) {
    if (Text(member.name) != key) continue;
    if (member.value.IsNull()) return std::nullopt;
    return Value(tree_, &member.value);
  }
  return std::nullopt;
}

Value Value::at(size_t index) const {
  return Value(tree_, &Deref(node_)[static_cast<rapidjson::SizeType>(index)]);
}

std::pair<absl::string_view, Value> Value::member(size_t index) const {
  const auto& member = *(Deref(node_).MemberBegin() + static_cast<std::ptrdiff_t>(index));
  return {Text(member.name), Value(tree_, &member.value)};
}

absl::Status Value::To(std::string* out) const {
  if (!is_string()) return Error(absl::StrCat("expected a string, found ", Describe()));
  *out = std::string(Text(Deref(node_)));
  return absl::OkStatus();
}

absl::Status Value::To(bool* out) const {
  if (!is_bool()) return Error(absl::StrCat("expected true or false, found ", Describe()));
  *out = Deref(node_).GetBool();
  return absl::OkStatus();
}

absl::Status Value::To(int64_t* out) const {
  const Node& node = Deref(node_);
  if (!node.IsInt64())
    return Error(absl::StrCat("expected ", Range<int64_t>(), ", found ", Describe()));
  *out = node.GetInt64();
  return absl::OkStatus();
}

absl::Status Value::To(uint64_t* out) const {
  const Node& node = Deref(node_);
  if (!node.IsUint64()) {
    return Error(absl::StrCat("expected ", Range<uint64_t>(), ", found ", Describe()));
  }
  *out = node.GetUint64();
  return absl::OkStatus();
}

absl::Status Value::To(int32_t* out) const {
  const Node& node = Deref(node_);
  if (!node.IsInt())
    return Error(absl::StrCat("expected ", Range<int32_t>(), ", found ", Describe()));
  *out = node.GetInt();
  return absl::OkStatus();
}

absl::Status Value::To(uint32_t* out) const {
  const Node& node = Deref(node_);
  if (!node.IsUint())
    return Error(absl::StrCat("expected ", Range<uint32_t>(), ", found ", Describe()));
  *out = node.GetUint();
  return absl::OkStatus();
}

absl::Status Value::To(uint16_t* out) const {
  const Node& node = Deref(node_);
  if (!node.IsUint() || node.GetUint() > 65535) {
    return Error(absl::StrCat("expected ", Range<uint16_t>(), ", found ", Describe()));
  }
  *out = static_cast<uint16_t>(node.GetUint());
  return absl::OkStatus();
}

absl::Status Value::To(double* out) const {
  if (!is_number()) return Error(absl::StrCat("expected a number, found ", Describe()));
  *out = Deref(node_).GetDouble();
  return absl::OkStatus();
}

absl::Status Value::ExpectObject() const {
  if (is_object()) return absl::OkStatus();
  return Error(absl::StrCat("expected an object, found ", Describe()));
}

absl::Status Value::ExpectArray() const {
  if (is_array()) return absl::OkStatus();
  return Error(absl::StrCat("expected an array, found ", Describe()));
}

std::string Value::Path() const {
  if (tree_ == nullptr) return "";
  return FindPath(tree_->document, node_, "").value_or("");
}

absl::Status Value::Error(absl::string_view reason) const {
  const std::string path = Path();
  return absl::InvalidArgumentError(path.empty() ? std::string(reason)
                                                 : absl::StrCat(path, ": ", reason));
}

absl::Status Value::Missing(absl::string_view key) const {
  return absl::InvalidArgumentError(absl::StrCat(Join(Path(), key), ": required, but missing"));
}

std::string Value::Describe() const {
  const Node& node = Deref(node_);
  switch (node.GetType()) {
    case rapidjson::kNullType:
      return "null";
    case rapidjson::kFalseType:
      return "false";
    case rapidjson::kTrueType:
      return "true";
    case rapidjson::kObjectType:
      return "an object";
    case rapidjson::kArrayType:
      return "an array";
    case rapidjson::kStringType:
      return absl::StrCat("the string '", EscapeForTerminal(Text(node).substr(0, 64)), "'");
    case rapidjson::kNumberType:
      return absl::StrCat("the number ", Dump());
  }
  return "something else";
}

std::string Value::Dump() const {
  rapidjson::StringBuffer buffer;
  rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
  Deref(node_).Accept(writer);
  return std::string(buffer.GetString(), buffer.GetSize());
}

Document::Document(std::unique_ptr<internal::Tree> tree) : tree_(std::move(tree)) {}
Document::Document(Document&&) noexcept = default;
Document& Document::operator=(Document&&) noexcept = default;
Document::~Document() = default;

Value Document::root() const { return Value(tree_.get(), &static_cast<Node&>(tree_->document)); }

absl::StatusOr<Document> Document::Parse(absl::string_view bytes, size_t limit) {
  if (bytes.size() > limit) {
    return absl::ResourceExhaustedError(absl::StrCat("the JSON document has ", bytes.size(),
                                                     " bytes; at most ", limit, " are accepted"));
  }
  auto tree = std::make_unique<internal::Tree>();
  rapidjson::MemoryStream stream(bytes.data(), bytes.size());
  rapidjson::EncodedInputStream<rapidjson::UTF8<>, rapidjson::MemoryStream> input(stream);
  rapidjson::Reader reader;
  rapidjson::ParseResult result;
  bool too_deep = false;
  // Populate hands the document a generator, which is how a handler can stand in between.
  auto generate = [&](rapidjson::Document& target) {
    DepthGuard guard(target);
    // Not with full precision: RapidJSON 1.1 counts the leading zeros of zero there ("0.000…0e1").
    // No document of ours depends on the last digit of a fraction.
    result = reader.Parse<rapidjson::kParseValidateEncodingFlag>(input, guard);
    too_deep = guard.too_deep();
    return !result.IsError();
  };
  tree->document.Populate(generate);
  if (too_deep) {
    return absl::InvalidArgumentError(absl::StrCat("the JSON document is nested deeper than ",
                                                   kMaxDepth, " levels at ",
                                                   PositionOf(bytes, result.Offset())));
  }
  if (result.IsError()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "not valid JSON at ", PositionOf(bytes, std::min(result.Offset(), bytes.size())), ": ",
        rapidjson::GetParseError_En(result.Code())));
  }
  RETURN_IF_ERROR(CheckDuplicates(tree->document, ""));
  return Document(std::move(tree));
}

}  // namespace gantry::json
