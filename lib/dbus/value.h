// Values of the D-Bus type system: a tree that knows its signature, to and from the wire's bytes.
//
// Only what systemd's interfaces use is convenient, but every type is read and written. Limits of
// the specification are enforced: signatures of 255 bytes, 32 levels of arrays and of structs;
// strings are UTF-8 without zero bytes. Bytes are in this machine's order: a bus never leaves it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::dbus {

struct Value {
  std::string signature;  // "u", "as", "a(sv)", "v"
  // Integers as they are (signed ones sign-extended), a boolean as 0 or 1, a double by its bits.
  uint64_t number = 0;
  // Strings, object paths and signatures; the bytes of "ay".
  std::string text;
  // Elements of an array, members of a struct or dictionary entry, the one value of a variant.
  std::vector<Value> members;

  static Value Bool(bool value) { return {.signature = "b", .number = value ? 1u : 0u}; }
  static Value Uint32(uint32_t value) { return {.signature = "u", .number = value}; }
  static Value Uint64(uint64_t value) { return {.signature = "t", .number = value}; }
  static Value String(absl::string_view text) {
    return {.signature = "s", .text = std::string(text)};
  }
  static Value ObjectPath(absl::string_view text) {
    return {.signature = "o", .text = std::string(text)};
  }
  static Value Bytes(std::string bytes) { return {.signature = "ay", .text = std::move(bytes)}; }
  static Value Array(absl::string_view element_signature, std::vector<Value> elements);
  static Value Struct(std::vector<Value> members);
  static Value Variant(Value inner) {
    Value value{.signature = "v"};
    value.members.push_back(std::move(inner));
    return value;
  }

  friend bool operator==(const Value&, const Value&) = default;
};

// Whether `signature` is a list of complete types within the limits. Errors: InvalidArgument.
absl::Status CheckSignature(absl::string_view signature);

// Length of the first complete type of a signature that CheckSignature accepts.
size_t FirstTypeLength(absl::string_view signature);

// Whether `text` may be an object path: "/", or "/a/b_1".
bool IsObjectPath(absl::string_view text);

// Bytes of `type`'s alignment: 1, 2, 4 or 8.
size_t AlignmentOf(char type);

// Appends the value to `out`, aligned from out's beginning. The value must be of its signature:
// what Read returns, or what the makers above build.
void Append(const Value& value, std::string& out);

// Reads one value of `signature` (one complete type) at `*at`, which moves behind it. Alignment
// counts from the beginning of `bytes`. Errors: InvalidArgument — not such a value.
absl::StatusOr<Value> Read(absl::string_view bytes, absl::string_view signature, size_t* at);

// Values of all types of `signature`, which together are all of `bytes`.
absl::StatusOr<std::vector<Value>> ReadAll(absl::string_view bytes, absl::string_view signature);

}  // namespace gantry::dbus
