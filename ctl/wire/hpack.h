// HPACK: the header compression of HTTP/2 (RFC 7541), as a client of gRPC needs it.
//
// Sending is literal only: a client of one or two calls gains nothing from a dynamic table.
// Receiving is complete: static and dynamic table, size updates, Huffman.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::wire {

struct Header {
  std::string name;
  std::string value;
  friend bool operator==(const Header& a, const Header& b) {
    return a.name == b.name && a.value == b.value;
  }
};

// Appends `name: value` to a header block, as a literal that no table remembers. `name` is lower
// case.
void AppendHeader(absl::string_view name, absl::string_view value, std::string* block);

// The text a Huffman-coded string stands for (RFC 7541, 5.2 and appendix B).
// Errors: InvalidArgument — the end-of-string symbol, or padding that is not up to seven 1 bits.
absl::StatusOr<std::string> DecodeHuffman(absl::string_view coded);

// Decodes the header blocks of one connection, in the order they came: the dynamic table lives from
// block to block, so after an error the connection is lost. Thread-compatible.
class HeaderDecoder {
 public:
  // What we announce as SETTINGS_HEADER_TABLE_SIZE (the protocol's default).
  static constexpr size_t kTableLimitBytes = 4096;
  // Names and values of one block, decoded; a peer that sends more is refused.
  static constexpr size_t kListLimitBytes = 256 << 10;

  // Errors: InvalidArgument — not HPACK; ResourceExhausted — over kListLimitBytes.
  absl::StatusOr<std::vector<Header>> Decode(absl::string_view block);

 private:
  absl::StatusOr<Header> Lookup(uint64_t index) const;
  absl::StatusOr<Header> ReadLiteral(uint64_t name_index, absl::string_view* block) const;
  void Remember(Header header);
  void Shrink(size_t limit);

  std::deque<Header> table_;  // The newest first.
  size_t table_bytes_ = 0;
  size_t table_limit_ = kTableLimitBytes;
};

}  // namespace gantry::wire
