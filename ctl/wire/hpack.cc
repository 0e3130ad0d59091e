#include "ctl/wire/hpack.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"

namespace gantry::wire {
namespace {

struct StaticHeader {
  const char* name;
  const char* value;
};

// RFC 7541, appendix A; index 1 is the first.
constexpr StaticHeader kStaticTable[] = {
    {":authority", ""},
    {":method", "GET"},
    {":method", "POST"},
    {":path", "/"},
    {":path", "/index.html"},
    {":scheme", "http"},
    {":scheme", "https"},
    {":status", "200"},
    {":status", "204"},
    {":status", "206"},
    {":status", "304"},
    {":status", "400"},
    {":status", "404"},
    {":status", "500"},
    {"accept-charset", ""},
    {"accept-encoding", "gzip, deflate"},
    {"accept-language", ""},
    {"accept-ranges", ""},
    {"accept", ""},
    {"access-control-allow-origin", ""},
    {"age", ""},
    {"allow", ""},
    {"authorization", ""},
    {"cache-control", ""},
    {"content-disposition", ""},
    {"content-encoding", ""},
    {"content-language", ""},
    {"content-length", ""},
    {"content-location", ""},
    {"content-range", ""},
    {"content-type", ""},
    {"cookie", ""},
    {"date", ""},
    {"etag", ""},
    {"expect", ""},
    {"expires", ""},
    {"from", ""},
    {"host", ""},
    {"if-match", ""},
    {"if-modified-since", ""},
    {"if-none-match", ""},
    {"if-range", ""},
    {"if-unmodified-since", ""},
    {"last-modified", ""},
    {"link", ""},
    {"location", ""},
    {"max-forwards", ""},
    {"proxy-authenticate", ""},
    {"proxy-authorization", ""},
    {"range", ""},
    {"referer", ""},
    {"refresh", ""},
    {"retry-after", ""},
    {"server", ""},
    {"set-cookie", ""},
    {"strict-transport-security", ""},
    {"transfer-encoding", ""},
    {"user-agent", ""},
    {"vary", ""},
    {"via", ""},
    {"www-authenticate", ""},
};
static_assert(std::size(kStaticTable) == 61);

// Appendix B is a canonical code: the codes of one length are consecutive, in the order of the
// symbols, and follow those of the length before. So the number of codes of each length and the
// symbols in that order say it all.
constexpr int kLongestCode = 30;
constexpr uint8_t kCodesOfLength[kLongestCode + 1] = {0,  0,  0,  0, 0,  10, 26, 32, 6, 0, 5,
                                                      3,  2,  6,  2, 3,  0,  0,  0,  3, 8, 13,
                                                      26, 29, 12, 4, 15, 19, 29, 0,  4};
constexpr uint16_t kEndOfString = 256;
constexpr uint16_t kSymbols[] = {
    48,  49,  50,  97,  99,  101, 105, 111, 115, 116, 32,  37,  45,  46,  47,  51,  52,  53,  54,
    55,  56,  57,  61,  65,  95,  98,  100, 102, 103, 104, 108, 109, 110, 112, 114, 117, 58,  66,
    67,  68,  69,  70,  71,  72,  73,  74,  75,  76,  77,  78,  79,  80,  81,  82,  83,  84,  85,
    86,  87,  89,  106, 107, 113, 118, 119, 120, 121, 122, 38,  42,  44,  59,  88,  90,  33,  34,
    40,  41,  63,  39,  43,  124, 35,  62,  0,   36,  64,  91,  93,  126, 94,  125, 60,  96,  123,
    92,  195, 208, 128, 130, 131, 162, 184, 194, 224, 226, 153, 161, 167, 172, 176, 177, 179, 209,
    216, 217, 227, 229, 230, 129, 132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173,
    178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233, 1,   135, 137, 138, 139, 140, 141,
    143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182, 183, 188, 191,
    197, 231, 239, 9,   142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237, 199, 207, 234, 235,
    192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255, 203, 204, 211, 212,
    214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253, 254, 2,   3,   4,   5,
    6,   7,   8,   11,  12,  14,  15,  16,  17,  18,  19,  20,  21,  23,  24,  25,  26,  27,  28,
    29,  30,  31,  127, 220, 249, 10,  13,  22,  256};
static_assert(std::size(kSymbols) == 257);

// RFC 7541, 5.1: an integer that begins in the low `prefix` bits of the first byte.
absl::StatusOr<uint64_t> ReadInteger(int prefix, absl::string_view* in) {
  if (in->empty()) return absl::InvalidArgumentError("header block ends in the middle of a number");
  const uint64_t mask = (1u << prefix) - 1;
  uint64_t number = static_cast<uint8_t>(in->front()) & mask;
  in->remove_prefix(1);
  if (number < mask) return number;
  // Five further bytes hold 35 bits: more than any length or index we would accept.
  for (int shift = 0; shift < 35; shift += 7) {
    if (in->empty()) break;
    const uint8_t byte = static_cast<uint8_t>(in->front());
    in->remove_prefix(1);
    number += static_cast<uint64_t>(byte & 0x7F) << shift;
    if ((byte & 0x80) == 0) return number;
  }
  return absl::InvalidArgumentError("header block has a number that is cut short or too long");
}

absl::StatusOr<std::string> ReadString(absl::string_view* in) {
  if (in->empty()) return absl::InvalidArgumentError("header block ends where a string should be");
  const bool huffman = (static_cast<uint8_t>(in->front()) & 0x80) != 0;
  ASSIGN_OR_RETURN(uint64_t length, ReadInteger(7, in));
  if (length > in->size()) {
    return absl::InvalidArgumentError("header block ends in the middle of a string");
  }
  const absl::string_view bytes = in->substr(0, length);
  in->remove_prefix(length);
  if (huffman) return DecodeHuffman(bytes);
  return std::string(bytes);
}

void AppendLength(size_t length, std::string* block) {
  if (length < 0x7F) {
    block->push_back(static_cast<char>(length));
    return;
  }
  block->push_back(0x7F);
  for (length -= 0x7F; length >= 0x80; length >>= 7) {
    block->push_back(static_cast<char>(0x80 | (length & 0x7F)));
  }
  block->push_back(static_cast<char>(length));
}

// RFC 7541, 4.1.
size_t EntryBytes(const Header& header) { return header.name.size() + header.value.size() + 32; }

}  // namespace

void AppendHeader(absl::string_view name, absl::string_view value, std::string* block) {
  block->push_back(0x00);  // Literal without indexing, new name.
  AppendLength(name.size(), block);
  absl::StrAppend(block, name);
  AppendLength(value.size(), block);
  absl::StrAppend(block, value);
}

absl::StatusOr<std::string> DecodeHuffman(absl::string_view coded) {
  std::string text;
  uint32_t code = 0;        // Bits of the symbol being read.
  int length = 0;           // How many they are.
  uint32_t first_code = 0;  // First code of that length.
  size_t first_index = 0;   // Where its symbol stands in kSymbols.
  for (const char c : coded) {
    const uint8_t byte = static_cast<uint8_t>(c);
    for (int bit = 7; bit >= 0; --bit) {
      first_code = (first_code + kCodesOfLength[length]) << 1;
      first_index += kCodesOfLength[length];
      code = (code << 1) | ((byte >> bit) & 1);
      ++length;
      if (code - first_code < kCodesOfLength[length]) {
        const uint16_t symbol = kSymbols[first_index + (code - first_code)];
        if (symbol == kEndOfString) {
          return absl::InvalidArgumentError("Huffman string contains the end-of-string symbol");
        }
        text.push_back(static_cast<char>(symbol));
        code = first_code = 0;
        length = 0;
        first_index = 0;
      } else if (length == kLongestCode) {
        // Unreachable for a complete code; kept so that no input can run past the table.
        return absl::InvalidArgumentError("Huffman string has an unknown code");
      }
    }
  }
  // What is left must be the beginning of the end-of-string symbol (all ones), shorter than a byte.
  if (length > 7 || code != (1u << length) - 1) {
    return absl::InvalidArgumentError("Huffman string has wrong padding");
  }
  return text;
}

absl::StatusOr<Header> HeaderDecoder::Lookup(uint64_t index) const {
  if (index >= 1 && index <= std::size(kStaticTable)) {
    const StaticHeader& entry = kStaticTable[index - 1];
    return Header{entry.name, entry.value};
  }
  if (index > std::size(kStaticTable) && index - std::size(kStaticTable) <= table_.size()) {
    return table_[index - std::size(kStaticTable) - 1];
  }
  return absl::InvalidArgumentError(absl::StrCat("header block names the unknown index ", index));
}

absl::StatusOr<Header> HeaderDecoder::ReadLiteral(uint64_t name_index,
                                                  absl::string_view* block) const {
  Header header;
  if (name_index != 0) {
    ASSIGN_OR_RETURN(Header named, Lookup(name_index));
    header.name = std::move(named.name);
  } else {
    ASSIGN_OR_RETURN(header.name, ReadString(block));
  }
  ASSIGN_OR_RETURN(header.value, ReadString(block));
  return header;
}

void HeaderDecoder::Shrink(size_t limit) {
  while (table_bytes_ > limit) {
    table_bytes_ -= EntryBytes(table_.back());
    table_.pop_back();
  }
}

void HeaderDecoder::Remember(Header header) {
  const size_t bytes = EntryBytes(header);
  // An entry larger than the table empties it: RFC 7541, 4.4.
  if (bytes > table_limit_) {
    Shrink(0);
    return;
  }
  Shrink(table_limit_ - bytes);
  table_bytes_ += bytes;
  table_.push_front(std::move(header));
}

absl::StatusOr<std::vector<Header>> HeaderDecoder::Decode(absl::string_view block) {
  std::vector<Header> headers;
  size_t list_bytes = 0;
  while (!block.empty()) {
    const uint8_t first = static_cast<uint8_t>(block.front());
    Header header;
    if ((first & 0x80) != 0) {  // Indexed.
      ASSIGN_OR_RETURN(uint64_t index, ReadInteger(7, &block));
      ASSIGN_OR_RETURN(header, Lookup(index));
    } else if ((first & 0xE0) == 0x20) {  // Table size update.
      ASSIGN_OR_RETURN(uint64_t limit, ReadInteger(5, &block));
      if (limit > kTableLimitBytes || !headers.empty()) {
        return absl::InvalidArgumentError("header block has a wrong table size update");
      }
      table_limit_ = limit;
      Shrink(limit);
      continue;
    } else {  // Literal: 01 is remembered, 0000 and 0001 are not.
      const bool remember = (first & 0xC0) == 0x40;
      ASSIGN_OR_RETURN(uint64_t name_index, ReadInteger(remember ? 6 : 4, &block));
      ASSIGN_OR_RETURN(header, ReadLiteral(name_index, &block));
      if (remember) Remember(header);
    }
    list_bytes += EntryBytes(header);
    if (list_bytes > kListLimitBytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("headers of an answer take more than ", kListLimitBytes, " bytes"));
    }
    headers.push_back(std::move(header));
  }
  return headers;
}

}  // namespace gantry::wire
