#include "lib/dbus/value.h"

#include <string.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"

namespace gantry::dbus {
namespace {

constexpr size_t kMaxSignatureBytes = 255;
constexpr int kMaxDepth = 32;  // Of arrays and of structs, each.
constexpr size_t kMaxArrayBytes = 64 << 20;
// Variants may hold variants: the specification counts 64 levels in all.
constexpr int kMaxNesting = 64;

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("D-Bus: ", what));
}

bool IsBasic(char type) { return absl::StrContains("ybnqiuxtdsogh", type) && type != '\0'; }

// Moves `*at` behind one complete type.
absl::Status SkipType(absl::string_view signature, size_t* at, int arrays, int structs) {
  if (*at >= signature.size()) return Malformed("a signature ends in the middle of a type");
  const char type = signature[(*at)++];
  if (IsBasic(type) || type == 'v') return absl::OkStatus();
  if (type == 'a') {
    if (++arrays > kMaxDepth) return Malformed("a signature nests arrays too deep");
    if (*at < signature.size() && signature[*at] == '{') {
      if (++structs > kMaxDepth) return Malformed("a signature nests structs too deep");
      ++*at;
      if (*at >= signature.size() || !IsBasic(signature[*at])) {
        return Malformed("the key of a dictionary has to be of a basic type");
      }
      ++*at;
      RETURN_IF_ERROR(SkipType(signature, at, arrays, structs));
      if (*at >= signature.size() || signature[(*at)++] != '}') {
        return Malformed("a dictionary entry has to have two members");
      }
      return absl::OkStatus();
    }
    return SkipType(signature, at, arrays, structs);
  }
  if (type != '(') return Malformed("a signature has an unknown type");
  if (++structs > kMaxDepth) return Malformed("a signature nests structs too deep");
  if (*at < signature.size() && signature[*at] == ')') return Malformed("a struct is empty");
  while (*at < signature.size() && signature[*at] != ')') {
    RETURN_IF_ERROR(SkipType(signature, at, arrays, structs));
  }
  if (*at >= signature.size()) return Malformed("a struct has no end");
  ++*at;
  return absl::OkStatus();
}

// Whole code points without overlong forms, surrogates or zero.
bool IsText(absl::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t at) { return static_cast<unsigned char>(text[at]); };
    const unsigned char first = byte(i);
    const size_t length = first < 0x80   ? 1
                          : first < 0xc2 ? 0
                          : first < 0xe0 ? 2
                          : first < 0xf0 ? 3
                                         : 4;
    if (first == 0 || length == 0 || first > 0xf4 || i + length > text.size()) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((byte(i + k) & 0xc0) != 0x80) return false;
    }
    if (first == 0xe0 && byte(i + 1) < 0xa0) return false;
    if (first == 0xed && byte(i + 1) > 0x9f) return false;
    if (first == 0xf0 && byte(i + 1) < 0x90) return false;
    if (first == 0xf4 && byte(i + 1) > 0x8f) return false;
    i += length;
  }
  return true;
}

void Pad(std::string& out, size_t alignment) {
  out.append((0 - out.size()) & (alignment - 1), '\0');
}

template <typename Number>
void AppendNumber(std::string& out, Number number) {
  Pad(out, sizeof number);
  out.append(reinterpret_cast<const char*>(&number), sizeof number);
}

void AppendText(std::string& out, char type, absl::string_view text) {
  if (type == 'g') {
    out.push_back(static_cast<char>(text.size()));
  } else {
    AppendNumber(out, static_cast<uint32_t>(text.size()));
  }
  absl::StrAppend(&out, text, absl::string_view("\0", 1));
}

class Reader {
 public:
  Reader(absl::string_view bytes, size_t at) : bytes_(bytes), at_(at) {}
  size_t at() const { return at_; }

  absl::StatusOr<Value> ReadType(absl::string_view signature, int nesting);

 private:
  absl::Status Align(size_t alignment) {
    while ((at_ & (alignment - 1)) != 0) {
      if (at_ >= bytes_.size()) return Malformed("a value is cut off");
      if (bytes_[at_++] != '\0') return Malformed("padding is not zero");
    }
    return absl::OkStatus();
  }
  absl::StatusOr<absl::string_view> Take(size_t size) {
    if (size > bytes_.size() - at_) return Malformed("a value is cut off");
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  template <typename Number>
  absl::StatusOr<Number> Take() {
    RETURN_IF_ERROR(Align(sizeof(Number)));
    ASSIGN_OR_RETURN(absl::string_view raw, Take(sizeof(Number)));
    Number number;
    memcpy(&number, raw.data(), sizeof number);
    return number;
  }
  template <typename Number>
  absl::StatusOr<Value> Number_(absl::string_view signature) {
    ASSIGN_OR_RETURN(Number number, Take<Number>());
    return Value{.signature = std::string(signature), .number = static_cast<uint64_t>(number)};
  }
  absl::StatusOr<Value> ReadBasic(char type);
  absl::StatusOr<Value> ReadText(char type);
  absl::StatusOr<Value> ReadArray(absl::string_view signature, int nesting);

  absl::string_view bytes_;
  size_t at_;
};

absl::StatusOr<Value> Reader::ReadText(char type) {
  uint32_t size = 0;
  if (type == 'g') {
    ASSIGN_OR_RETURN(absl::string_view length, Take(1));
    size = static_cast<unsigned char>(length[0]);
  } else {
    ASSIGN_OR_RETURN(size, Take<uint32_t>());
  }
  ASSIGN_OR_RETURN(absl::string_view text, Take(size));
  ASSIGN_OR_RETURN(absl::string_view end, Take(1));
  if (end[0] != '\0') return Malformed("a string has no zero byte at its end");
  if (!IsText(text)) return Malformed("a string is not UTF-8");
  if (type == 'o' && !IsObjectPath(text)) return Malformed("an object path is none");
  if (type == 'g') RETURN_IF_ERROR(CheckSignature(text));
  return Value{.signature = std::string(1, type), .text = std::string(text)};
}

absl::StatusOr<Value> Reader::ReadBasic(char type) {
  const absl::string_view signature(&type, 1);
  switch (type) {
    case 'y':
      return Number_<uint8_t>(signature);
    case 'n':
      return Number_<int16_t>(signature);
    case 'q':
      return Number_<uint16_t>(signature);
    case 'i':
      return Number_<int32_t>(signature);
    case 'u':
    case 'h':
      return Number_<uint32_t>(signature);
    case 'x':
    case 't':
    case 'd':
      return Number_<uint64_t>(signature);
    case 'b': {
      ASSIGN_OR_RETURN(Value value, Number_<uint32_t>(signature));
      if (value.number > 1) return Malformed("a boolean is neither 0 nor 1");
      return value;
    }
    default:
      return ReadText(type);
  }
}

absl::StatusOr<Value> Reader::ReadArray(absl::string_view signature, int nesting) {
  ASSIGN_OR_RETURN(uint32_t size, Take<uint32_t>());
  if (size > kMaxArrayBytes) return Malformed("an array is over 64 MiB");
  RETURN_IF_ERROR(Align(AlignmentOf(signature[1])));
  if (size > bytes_.size() - at_) return Malformed("an array is cut off");
  Value value{.signature = std::string(signature)};
  if (signature == "ay") {
    ASSIGN_OR_RETURN(absl::string_view raw, Take(size));
    value.text = std::string(raw);
    return value;
  }
  const size_t end = at_ + size;
  while (at_ < end) {
    ASSIGN_OR_RETURN(Value element, ReadType(signature.substr(1), nesting + 1));
    value.members.push_back(std::move(element));
  }
  if (at_ != end) return Malformed("an array's last element is longer than the array");
  return value;
}

absl::StatusOr<Value> Reader::ReadType(absl::string_view signature, int nesting) {
  if (nesting > kMaxNesting) return Malformed("values are nested too deep");
  const char type = signature[0];
  if (IsBasic(type)) return ReadBasic(type);
  if (type == 'a') return ReadArray(signature, nesting);
  Value value{.signature = std::string(signature)};
  if (type == 'v') {
    ASSIGN_OR_RETURN(Value inner, ReadText('g'));
    if (inner.text.empty() || FirstTypeLength(inner.text) != inner.text.size()) {
      return Malformed("a variant does not hold exactly one value");
    }
    ASSIGN_OR_RETURN(Value held, ReadType(inner.text, nesting + 1));
    value.members.push_back(std::move(held));
    return value;
  }
  RETURN_IF_ERROR(Align(8));
  for (size_t at = 1; at + 1 < signature.size();) {
    const absl::string_view rest = signature.substr(at);
    const size_t length = FirstTypeLength(rest);
    ASSIGN_OR_RETURN(Value member, ReadType(rest.substr(0, length), nesting + 1));
    value.members.push_back(std::move(member));
    at += length;
  }
  return value;
}

}  // namespace

Value Value::Array(absl::string_view element_signature, std::vector<Value> elements) {
  return {.signature = absl::StrCat("a", element_signature), .members = std::move(elements)};
}

Value Value::Struct(std::vector<Value> members) {
  std::string signature = "(";
  for (const Value& member : members) signature += member.signature;
  return {.signature = signature + ")", .members = std::move(members)};
}

absl::Status CheckSignature(absl::string_view signature) {
  if (signature.size() > kMaxSignatureBytes) return Malformed("a signature is over 255 bytes");
  for (size_t at = 0; at < signature.size();) RETURN_IF_ERROR(SkipType(signature, &at, 0, 0));
  return absl::OkStatus();
}

size_t FirstTypeLength(absl::string_view signature) {
  size_t at = 0;
  return SkipType(signature, &at, 0, 0).ok() ? at : signature.size();
}

bool IsObjectPath(absl::string_view text) {
  if (text.empty() || text[0] != '/') return false;
  if (text.size() == 1) return true;
  for (size_t i = 1; i < text.size(); ++i) {
    const bool empty_part = text[i] == '/' && text[i - 1] == '/';
    if (empty_part || (!absl::ascii_isalnum(static_cast<unsigned char>(text[i])) &&
                       text[i] != '_' && text[i] != '/')) {
      return false;
    }
  }
  return text.back() != '/';
}

size_t AlignmentOf(char type) {
  if (absl::StrContains("ygv", type)) return 1;
  if (absl::StrContains("nq", type)) return 2;
  return absl::StrContains("xtd({", type) ? 8 : 4;
}

void Append(const Value& value, std::string& out) {
  const char type = value.signature[0];
  switch (type) {
    case 'y':
      return out.push_back(static_cast<char>(value.number));
    case 'n':
    case 'q':
      return AppendNumber(out, static_cast<uint16_t>(value.number));
    case 'b':
    case 'i':
    case 'u':
    case 'h':
      return AppendNumber(out, static_cast<uint32_t>(value.number));
    case 'x':
    case 't':
    case 'd':
      return AppendNumber(out, value.number);
    case 's':
    case 'o':
    case 'g':
      return AppendText(out, type, value.text);
    case 'v':
      AppendText(out, 'g', value.members[0].signature);
      return Append(value.members[0], out);
    case 'a': {
      AppendNumber(out, uint32_t{0});
      const size_t length_at = out.size() - sizeof(uint32_t);
      Pad(out, AlignmentOf(value.signature[1]));
      const size_t begin = out.size();
      if (value.signature == "ay") out += value.text;
      for (const Value& member : value.members) Append(member, out);
      const uint32_t size = static_cast<uint32_t>(out.size() - begin);
      memcpy(&out[length_at], &size, sizeof size);
      return;
    }
    default:
      Pad(out, 8);
      for (const Value& member : value.members) Append(member, out);
  }
}

absl::StatusOr<Value> Read(absl::string_view bytes, absl::string_view signature, size_t* at) {
  Reader reader(bytes, *at);
  ASSIGN_OR_RETURN(Value value, reader.ReadType(signature, 0));
  *at = reader.at();
  return value;
}

absl::StatusOr<std::vector<Value>> ReadAll(absl::string_view bytes, absl::string_view signature) {
  RETURN_IF_ERROR(CheckSignature(signature));
  std::vector<Value> values;
  size_t at = 0;
  while (!signature.empty()) {
    const size_t length = FirstTypeLength(signature);
    ASSIGN_OR_RETURN(Value value, Read(bytes, signature.substr(0, length), &at));
    values.push_back(std::move(value));
    signature.remove_prefix(length);
  }
  if (at != bytes.size()) return Malformed("bytes are left after the last value");
  return values;
}

}  // namespace gantry::dbus
