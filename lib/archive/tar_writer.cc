#include "lib/archive/tar_writer.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::archive {
namespace {

constexpr size_t kBlockBytes = 512;
constexpr uint64_t kMaxOctal7 = 07777777;
constexpr uint64_t kMaxOctal11 = 077777777777;

// The header of POSIX.1-1988, "ustar".
struct Header {
  char name[100];
  char mode[8];
  char uid[8];
  char gid[8];
  char size[12];
  char mtime[12];
  char checksum[8];
  char type;
  char link_name[100];
  char magic[6];
  char version[2];
  char user_name[32];
  char group_name[32];
  char device_major[8];
  char device_minor[8];
  char prefix[155];
  char padding[12];
};
static_assert(sizeof(Header) == kBlockBytes);

template <size_t N>
void PutOctal(char (&field)[N], uint64_t value) {
  // What does not fit is 0 here and told by the extended header.
  const uint64_t limit = N == 8 ? kMaxOctal7 : kMaxOctal11;
  std::snprintf(field, N, "%0*llo", static_cast<int>(N - 1),
                static_cast<unsigned long long>(value > limit ? 0 : value));
}

template <size_t N>
void PutText(char (&field)[N], absl::string_view text) {
  std::memcpy(field, text.data(), std::min(N, text.size()));
}

void Seal(Header& header) {
  std::memcpy(header.magic, "ustar", 6);
  std::memcpy(header.version, "00", 2);
  std::memset(header.checksum, ' ', sizeof(header.checksum));
  unsigned sum = 0;
  const auto* bytes = reinterpret_cast<const unsigned char*>(&header);
  for (size_t i = 0; i < sizeof(header); ++i) sum += bytes[i];
  std::snprintf(header.checksum, sizeof(header.checksum), "%06o", sum);
  header.checksum[7] = ' ';
}

char TypeFlag(EntryType type) {
  switch (type) {
    case EntryType::kRegular:
      return '0';
    case EntryType::kHardLink:
      return '1';
    case EntryType::kSymlink:
      return '2';
    case EntryType::kCharacterDevice:
      return '3';
    case EntryType::kBlockDevice:
      return '4';
    case EntryType::kDirectory:
      return '5';
    case EntryType::kFifo:
      return '6';
  }
  return '0';
}

// "LENGTH KEY=VALUE\n", where LENGTH counts itself.
std::string PaxRecord(absl::string_view key, absl::string_view value) {
  const size_t rest = key.size() + value.size() + 3;
  size_t length = rest + 1;
  while (absl::StrCat(length).size() + rest != length) length = absl::StrCat(length).size() + rest;
  return absl::StrCat(length, " ", key, "=", value, "\n");
}

bool IsAscii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0; });
}

std::string PaxRecords(const TarEntry& entry, const std::string& path) {
  std::string records;
  if (path.size() > sizeof(Header::name) || !IsAscii(path)) records += PaxRecord("path", path);
  if (entry.link_target.size() > sizeof(Header::link_name) || !IsAscii(entry.link_target)) {
    records += PaxRecord("linkpath", entry.link_target);
  }
  if (entry.type == EntryType::kRegular && entry.size_bytes > kMaxOctal11) {
    records += PaxRecord("size", absl::StrCat(entry.size_bytes));
  }
  if (entry.uid > static_cast<int64_t>(kMaxOctal7)) {
    records += PaxRecord("uid", absl::StrCat(entry.uid));
  }
  if (entry.gid > static_cast<int64_t>(kMaxOctal7)) {
    records += PaxRecord("gid", absl::StrCat(entry.gid));
  }
  const int64_t seconds = absl::ToUnixSeconds(entry.modified);
  const int64_t nanoseconds =
      absl::ToInt64Nanoseconds(entry.modified - absl::FromUnixSeconds(seconds));
  if (seconds < 0 || nanoseconds != 0 || seconds > static_cast<int64_t>(kMaxOctal11)) {
    // A time before 1970 with a fraction would need care with the sign; whole seconds will do.
    std::string text = absl::StrCat(seconds);
    if (seconds >= 0 && nanoseconds != 0)
      absl::StrAppend(&text, ".", absl::Dec(nanoseconds, absl::kZeroPad9));
    records += PaxRecord("mtime", text);
  }
  for (const auto& [name, value] : entry.xattrs) {
    records += PaxRecord(absl::StrCat("SCHILY.xattr.", name), value);
  }
  return records;
}

absl::string_view AsBytes(const Header& header) {
  return absl::string_view(reinterpret_cast<const char*>(&header), sizeof(header));
}

const std::array<char, 2 * kBlockBytes> kZeros = {};

}  // namespace

absl::Status TarWriter::PadEntry() {
  if (data_left_ != 0) {
    return absl::InternalError(absl::StrCat("a tar entry lacks ", data_left_, " bytes of data"));
  }
  const size_t padding = static_cast<size_t>(padding_);
  padding_ = 0;
  if (padding == 0) return absl::OkStatus();
  return output_(absl::string_view(kZeros.data(), padding));
}

absl::Status TarWriter::Add(const TarEntry& entry) {
  RETURN_IF_ERROR(PadEntry());
  std::string path = entry.path;
  if (entry.type == EntryType::kDirectory && (path.empty() || path.back() != '/')) path += '/';
  const std::string records = PaxRecords(entry, path);
  if (!records.empty()) {
    Header extended = {};
    PutText(extended.name, "PaxHeaders/entry");
    PutOctal(extended.mode, 0644);
    PutOctal(extended.uid, 0);
    PutOctal(extended.gid, 0);
    PutOctal(extended.size, records.size());
    PutOctal(extended.mtime, 0);
    extended.type = 'x';
    Seal(extended);
    RETURN_IF_ERROR(output_(AsBytes(extended)));
    RETURN_IF_ERROR(output_(records));
    const size_t over = records.size() % kBlockBytes;
    if (over != 0) RETURN_IF_ERROR(output_(absl::string_view(kZeros.data(), kBlockBytes - over)));
  }
  const uint64_t size = entry.type == EntryType::kRegular ? entry.size_bytes : 0;
  Header header = {};
  PutText(header.name, path);
  PutOctal(header.mode, entry.permissions);
  PutOctal(header.uid, static_cast<uint64_t>(entry.uid));
  PutOctal(header.gid, static_cast<uint64_t>(entry.gid));
  PutOctal(header.size, size);
  PutOctal(header.mtime,
           static_cast<uint64_t>(std::max<int64_t>(absl::ToUnixSeconds(entry.modified), 0)));
  header.type = TypeFlag(entry.type);
  PutText(header.link_name, entry.link_target);
  PutOctal(header.device_major, entry.device_major);
  PutOctal(header.device_minor, entry.device_minor);
  Seal(header);
  data_left_ = size;
  padding_ = (kBlockBytes - size % kBlockBytes) % kBlockBytes;
  return output_(AsBytes(header));
}

absl::Status TarWriter::WriteData(absl::string_view bytes) {
  if (bytes.size() > data_left_) return absl::InternalError("a tar entry got too much data");
  data_left_ -= bytes.size();
  return output_(bytes);
}

absl::Status TarWriter::AddFile(const TarEntry& entry, absl::string_view bytes) {
  TarEntry sized = entry;
  sized.size_bytes = bytes.size();
  RETURN_IF_ERROR(Add(sized));
  return WriteData(bytes);
}

absl::Status TarWriter::Finish() {
  RETURN_IF_ERROR(PadEntry());
  return output_(absl::string_view(kZeros.data(), kZeros.size()));
}

}  // namespace gantry::archive
