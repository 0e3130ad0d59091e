#include "ctl/tar.h"

#include <string.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/base/status.h"

namespace gantry::ctl {
namespace {

constexpr size_t kBlock = 512;
constexpr uint64_t kMaxExtensionBytes = 1 << 20;  // SECURITY-RULES 29.
constexpr size_t kNameBytes = 100;
constexpr size_t kChunkBytes = 256 << 10;
constexpr uint64_t kLargestOctalSize = 077777777777;

// POSIX ustar header.
struct Header {
  char name[100];
  char mode[8];
  char uid[8];
  char gid[8];
  char size[12];
  char mtime[12];
  char checksum[8];
  char type;
  char link[100];
  char magic[6];
  char version[2];
  char user[32];
  char group[32];
  char major[8];
  char minor[8];
  char prefix[155];
  char unused[12];
};
static_assert(sizeof(Header) == kBlock);

template <size_t N>
std::string Text(const char (&field)[N]) {
  return std::string(field, ::strnlen(field, N));
}

// Octal with blanks around it, or GNU's base-256.
template <size_t N>
absl::StatusOr<uint64_t> Number(const char (&field)[N]) {
  uint64_t number = 0;
  if ((static_cast<uint8_t>(field[0]) & 0x80) != 0) {
    if (static_cast<uint8_t>(field[0]) == 0xFF)
      return 0;  // Negative: only times are, and harmless.
    number = static_cast<uint8_t>(field[0]) & 0x7F;
    for (size_t i = 1; i < N; ++i) {
      if (number >> 55 != 0) return absl::InvalidArgumentError("archive has a number too large");
      number = (number << 8) | static_cast<uint8_t>(field[i]);
    }
    return number;
  }
  bool begun = false;
  for (const char c : field) {
    if (c >= '0' && c <= '7') {
      number = number * 8 + static_cast<uint64_t>(c - '0');
      begun = true;
    } else if (c == '\0' || c == ' ') {
      if (begun) break;
    } else {
      return absl::InvalidArgumentError("archive has a malformed number");
    }
  }
  return number;
}

uint32_t Checksum(const Header& header) {
  Header copy = header;
  memset(copy.checksum, ' ', sizeof copy.checksum);
  uint32_t sum = 0;
  for (size_t i = 0; i < kBlock; ++i) sum += reinterpret_cast<const uint8_t*>(&copy)[i];
  return sum;
}

// The fields of pax records ("12 path=name\n") that we know.
absl::Status ReadPax(absl::string_view records, std::map<std::string, std::string>* fields) {
  while (!records.empty()) {
    const size_t space = records.find(' ');
    uint64_t length = 0;
    if (space == records.npos || !absl::SimpleAtoi(records.substr(0, space), &length) ||
        length <= space + 1 || length > records.size() || records[length - 1] != '\n') {
      return absl::InvalidArgumentError("archive has a malformed extended header");
    }
    const absl::string_view record = records.substr(space + 1, length - space - 2);
    const size_t equals = record.find('=');
    if (equals == record.npos) {
      return absl::InvalidArgumentError("archive has a malformed extended header");
    }
    (*fields)[std::string(record.substr(0, equals))] = std::string(record.substr(equals + 1));
    records.remove_prefix(length);
  }
  return absl::OkStatus();
}

// A pax record's length counts its own digits.
std::string PaxRecord(absl::string_view key, absl::string_view value) {
  const size_t rest = key.size() + value.size() + 3;
  size_t length = rest + 1;
  while (absl::StrCat(length).size() + rest != length) ++length;
  return absl::StrCat(length, " ", key, "=", value, "\n");
}

template <size_t N>
void PutOctal(uint64_t number, char (&field)[N]) {
  absl::SNPrintF(field, N, "%0*o", static_cast<int>(N - 1), number);
}

template <size_t N>
void PutText(absl::string_view text, char (&field)[N]) {
  memcpy(field, text.data(), std::min(text.size(), N));
}

char TypeLetter(TarEntry::Type type) {
  switch (type) {
    case TarEntry::Type::kFile:
      return '0';
    case TarEntry::Type::kHardLink:
      return '1';
    case TarEntry::Type::kSymlink:
      return '2';
    case TarEntry::Type::kDirectory:
      return '5';
    case TarEntry::Type::kSpecial:
      return '6';
  }
  return '0';
}

std::string HeaderBlock(const TarEntry& entry, char type, uint64_t size) {
  Header header = {};
  PutText(entry.name, header.name);
  PutOctal(entry.mode & 07777, header.mode);
  // Ids above what octal holds are as good as nobody's here; pax carries the real ones.
  PutOctal(entry.uid & 07777777, header.uid);
  PutOctal(entry.gid & 07777777, header.gid);
  PutOctal(std::min(size, kLargestOctalSize), header.size);
  PutOctal(static_cast<uint64_t>(std::max<int64_t>(entry.modified_seconds, 0)) & kLargestOctalSize,
           header.mtime);
  header.type = type;
  PutText(entry.link, header.link);
  memcpy(header.magic, "ustar", 6);
  memcpy(header.version, "00", 2);
  absl::SNPrintF(header.checksum, sizeof header.checksum, "%06o", Checksum(header));
  header.checksum[7] = ' ';
  return std::string(reinterpret_cast<const char*>(&header), kBlock);
}

uint64_t PaddingOf(uint64_t bytes) { return (kBlock - bytes % kBlock) % kBlock; }

absl::StatusOr<TarEntry> ParseHeader(const Header& header) {
  TarEntry entry;
  entry.name = Text(header.name);
  if (memcmp(header.magic, "ustar\0", 6) == 0 && header.prefix[0] != '\0') {
    entry.name = absl::StrCat(Text(header.prefix), "/", entry.name);
  }
  entry.link = Text(header.link);
  ASSIGN_OR_RETURN(uint64_t mode, Number(header.mode));
  ASSIGN_OR_RETURN(uint64_t uid, Number(header.uid));
  ASSIGN_OR_RETURN(uint64_t gid, Number(header.gid));
  ASSIGN_OR_RETURN(entry.size_bytes, Number(header.size));
  ASSIGN_OR_RETURN(uint64_t modified, Number(header.mtime));
  entry.mode = static_cast<uint32_t>(mode & 07777);
  entry.uid = static_cast<uint32_t>(uid);
  entry.gid = static_cast<uint32_t>(gid);
  entry.modified_seconds = static_cast<int64_t>(modified);
  switch (header.type) {
    case '0':
    case '\0':
    case '7':
      // Before ustar a directory was a file whose name ends in a slash.
      entry.type = !entry.name.empty() && entry.name.back() == '/' ? TarEntry::Type::kDirectory
                                                                   : TarEntry::Type::kFile;
      break;
    case '1':
      entry.type = TarEntry::Type::kHardLink;
      break;
    case '2':
      entry.type = TarEntry::Type::kSymlink;
      break;
    case '5':
      entry.type = TarEntry::Type::kDirectory;
      break;
    default:
      entry.type = TarEntry::Type::kSpecial;
  }
  return entry;
}

absl::Status ApplyPax(const std::map<std::string, std::string>& fields, TarEntry* entry) {
  for (const auto& [key, value] : fields) {
    bool good = true;
    if (key == "path") entry->name = value;
    if (key == "linkpath") entry->link = value;
    if (key == "size") good = absl::SimpleAtoi(value, &entry->size_bytes);
    if (key == "uid") good = absl::SimpleAtoi(value, &entry->uid);
    if (key == "gid") good = absl::SimpleAtoi(value, &entry->gid);
    if (key == "mtime") {
      double seconds = 0;
      good = absl::SimpleAtod(value, &seconds) && seconds > -1e12 && seconds < 1e12;
      if (good) entry->modified_seconds = static_cast<int64_t>(seconds);
    }
    if (!good) {
      return absl::InvalidArgumentError(
          absl::StrCat("archive has a malformed ", key, " in an extended header"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<bool> TarReader::ReadBlock(char* block) {
  size_t used = 0;
  while (used < kBlock) {
    ASSIGN_OR_RETURN(size_t count, source_(block + used, kBlock - used));
    if (count == 0) {
      if (used == 0) return false;
      return absl::InvalidArgumentError("archive is cut short");
    }
    used += count;
  }
  return true;
}

absl::StatusOr<absl::string_view> TarReader::ReadData() {
  if (left_ == 0) return absl::string_view();
  buffer_.resize(kChunkBytes);
  ASSIGN_OR_RETURN(size_t count,
                   source_(buffer_.data(), std::min<uint64_t>(left_, buffer_.size())));
  if (count == 0) return absl::InvalidArgumentError("archive is cut short");
  left_ -= count;
  return absl::string_view(buffer_.data(), count);
}

absl::Status TarReader::Skip() {
  left_ += std::exchange(padding_, 0);
  while (left_ > 0) RETURN_IF_ERROR(ReadData().status());
  return absl::OkStatus();
}

absl::StatusOr<std::string> TarReader::ReadExtension(uint64_t size) {
  if (size > kMaxExtensionBytes) {
    return absl::InvalidArgumentError("archive has an extended header over 1 MiB");
  }
  left_ = size;
  padding_ = PaddingOf(size);
  std::string bytes;
  while (bytes.size() < size) {
    ASSIGN_OR_RETURN(absl::string_view part, ReadData());
    absl::StrAppend(&bytes, part);
  }
  RETURN_IF_ERROR(Skip());
  return bytes;
}

absl::StatusOr<std::optional<TarEntry>> TarReader::Next() {
  RETURN_IF_ERROR(Skip());
  std::map<std::string, std::string> fields;
  while (true) {
    Header header;
    ASSIGN_OR_RETURN(bool got, ReadBlock(reinterpret_cast<char*>(&header)));
    // One empty block is enough: the second one may be missing.
    const char* bytes = reinterpret_cast<const char*>(&header);
    if (!got || std::all_of(bytes, bytes + kBlock, [](char c) { return c == '\0'; })) {
      return std::nullopt;
    }
    ASSIGN_OR_RETURN(uint64_t checksum, Number(header.checksum));
    if (checksum != Checksum(header)) {
      return absl::InvalidArgumentError("archive has a header with a wrong checksum");
    }
    ASSIGN_OR_RETURN(TarEntry entry, ParseHeader(header));
    if (header.type == 'x' || header.type == 'g' || header.type == 'L' || header.type == 'K') {
      ASSIGN_OR_RETURN(std::string extension, ReadExtension(entry.size_bytes));
      if (header.type == 'x') RETURN_IF_ERROR(ReadPax(extension, &fields));
      extension.resize(::strnlen(extension.data(), extension.size()));
      if (header.type == 'L') fields["path"] = extension;
      if (header.type == 'K') fields["linkpath"] = extension;
      continue;
    }
    RETURN_IF_ERROR(ApplyPax(fields, &entry));
    if (entry.type != TarEntry::Type::kFile && entry.type != TarEntry::Type::kSpecial) {
      entry.size_bytes = 0;
    }
    left_ = entry.size_bytes;
    padding_ = PaddingOf(left_);
    return entry;
  }
}

absl::Status TarReader::Drain() {
  char block[kBlock * 16];
  while (true) {
    ASSIGN_OR_RETURN(size_t count, source_(block, sizeof block));
    if (count == 0) return absl::OkStatus();
  }
}

absl::Status TarWriter::Entry(const TarEntry& entry) {
  std::string pax;
  if (entry.name.size() > kNameBytes) pax += PaxRecord("path", entry.name);
  if (entry.link.size() > kNameBytes) pax += PaxRecord("linkpath", entry.link);
  const uint64_t size = entry.type == TarEntry::Type::kFile ? entry.size_bytes : 0;
  if (size > kLargestOctalSize) pax += PaxRecord("size", absl::StrCat(size));
  if (entry.uid > 07777777) pax += PaxRecord("uid", absl::StrCat(entry.uid));
  if (entry.gid > 07777777) pax += PaxRecord("gid", absl::StrCat(entry.gid));
  if (!pax.empty()) {
    TarEntry extended;
    extended.name = "././@PaxHeader";
    extended.mode = 0644;
    RETURN_IF_ERROR(sink_(absl::StrCat(HeaderBlock(extended, 'x', pax.size()), pax,
                                       std::string(PaddingOf(pax.size()), '\0'))));
  }
  data_bytes_ = 0;
  return sink_(HeaderBlock(entry, TypeLetter(entry.type), size));
}

absl::Status TarWriter::Data(absl::string_view bytes) {
  data_bytes_ += bytes.size();
  return sink_(bytes);
}

absl::Status TarWriter::EndData() {
  return sink_(std::string(PaddingOf(std::exchange(data_bytes_, 0)), '\0'));
}

absl::Status TarWriter::Finish() { return sink_(std::string(2 * kBlock, '\0')); }

}  // namespace gantry::ctl
