// The protobuf wire format, read and written field by field: no generated code, no reflection, so
// that a shim with it stays below a megabyte. Field numbers come from the .proto files under
// protos/.
//
//   std::string out;
//   pb::Writer writer(&out);
//   writer.String(1, id);
//   writer.Varint(3, pid);
//
//   for (pb::Reader reader(bytes); reader.Next();) {
//     if (reader.field() == 1) id = std::string(reader.bytes());
//   }
//   if (!reader.ok()) …
//
// Source: protobuf.dev/programming-guides/encoding. Thread-compatible.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/string_view.h"

namespace gantry::pb {

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// Walks over the fields of one message. Values of the wrong kind read as zero or empty, as unknown
// fields do: a message from a newer peer never fails for that. Borrowed: `bytes` must outlive it.
class Reader {
 public:
  explicit Reader(absl::string_view bytes)
      : at_(reinterpret_cast<const uint8_t*>(bytes.data())), end_(at_ + bytes.size()) {}

  // Goes to the next field; false at the end, and on bytes that are no message (then ok() is
  // false).
  bool Next() {
    number_ = 0;
    bytes_ = absl::string_view();
    if (at_ == end_ || !ok_) return false;
    uint64_t tag;
    if (!TakeVarint(&tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff) return Fail();
    field_ = static_cast<uint32_t>(tag >> 3);
    type_ = static_cast<WireType>(tag & 7);
    switch (type_) {
      case WireType::kVarint:
        return TakeVarint(&number_) || Fail();
      case WireType::kFixed64:
        return TakeFixed(8) || Fail();
      case WireType::kFixed32:
        return TakeFixed(4) || Fail();
      case WireType::kBytes: {
        uint64_t size;
        if (!TakeVarint(&size) || size > static_cast<uint64_t>(end_ - at_)) return Fail();
        bytes_ = absl::string_view(reinterpret_cast<const char*>(at_), size);
        at_ += size;
        return true;
      }
    }
    return Fail();  // Groups and reserved types.
  }

  uint32_t field() const { return field_; }
  WireType type() const { return type_; }
  uint64_t varint() const { return number_; }  // Also the bits of fixed fields.
  int64_t signed_varint() const { return static_cast<int64_t>(number_); }
  bool boolean() const { return number_ != 0; }
  absl::string_view bytes() const { return bytes_; }
  std::string text() const { return std::string(bytes_); }
  bool ok() const { return ok_; }

 private:
  bool Fail() {
    ok_ = false;
    field_ = 0;
    number_ = 0;
    bytes_ = absl::string_view();
    return false;
  }
  bool TakeVarint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at_ == end_) return false;
      const uint8_t byte = *at_++;
      if (shift == 63 && byte > 1) return false;
      *value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool TakeFixed(int size) {
    if (end_ - at_ < size) return false;
    for (int i = 0; i < size; ++i) number_ |= uint64_t{at_[i]} << (8 * i);
    at_ += size;
    return true;
  }

  const uint8_t* at_;
  const uint8_t* end_;
  uint32_t field_ = 0;
  WireType type_ = WireType::kVarint;
  uint64_t number_ = 0;
  absl::string_view bytes_;
  bool ok_ = true;
};

// Appends fields to a string. Proto3: zero and empty are left out, except by the Always… forms.
class Writer {
 public:
  explicit Writer(std::string* out) : out_(out) {}

  void Varint(uint32_t field, uint64_t value) {
    if (value != 0) AlwaysVarint(field, value);
  }
  void Bool(uint32_t field, bool value) { Varint(field, value ? 1 : 0); }
  void AlwaysVarint(uint32_t field, uint64_t value) {
    Tag(field, WireType::kVarint);
    Raw(value);
  }
  void Double(uint32_t field, double value) {
    if (value == 0) return;
    uint64_t bits;
    static_assert(sizeof bits == sizeof value);
    std::memcpy(&bits, &value, sizeof bits);
    Tag(field, WireType::kFixed64);
    for (int i = 0; i < 8; ++i) out_->push_back(static_cast<char>(bits >> (8 * i)));
  }
  void String(uint32_t field, absl::string_view value) {
    if (!value.empty()) AlwaysString(field, value);
  }
  // For messages (an empty one is present, not absent) and elements of repeated fields.
  void AlwaysString(uint32_t field, absl::string_view value) {
    Tag(field, WireType::kBytes);
    Raw(value.size());
    out_->append(value.data(), value.size());
  }
  // A message in place: `fill(Writer&)` writes its fields.
  template <typename Fill>
  void Message(uint32_t field, Fill fill) {
    std::string inner;
    Writer writer(&inner);
    fill(writer);
    AlwaysString(field, inner);
  }

 private:
  void Tag(uint32_t field, WireType type) {
    Raw(uint64_t{field} << 3 | static_cast<uint64_t>(type));
  }
  void Raw(uint64_t value) {
    while (value >= 0x80) {
      out_->push_back(static_cast<char>(value | 0x80));
      value >>= 7;
    }
    out_->push_back(static_cast<char>(value));
  }

  std::string* out_;
};

}  // namespace gantry::pb
