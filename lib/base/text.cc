#include "lib/base/text.h"

#include <cstdio>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace gantry {
namespace {

// Bytes of the UTF-8 sequence at the start of `text`, or 0 if it is not valid there.
size_t Utf8Length(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto follows = [&](size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (!follows(1) || !follows(2)) return 0;
    if (first == 0xE0 && byte(1) < 0xA0) return 0;  // Overlong.
    if (first == 0xED && byte(1) > 0x9F) return 0;  // Surrogate.
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (!follows(1) || !follows(2) || !follows(3)) return 0;
    if (first == 0xF0 && byte(1) < 0x90) return 0;
    if (first == 0xF4 && byte(1) > 0x8F) return 0;
    return 4;
  }
  return 0;
}

bool IsControl(absl::string_view sequence) {
  const unsigned char first = static_cast<unsigned char>(sequence[0]);
  if (sequence.size() == 1) return first < 0x20 || first == 0x7F;
  // U+0080..U+009F: terminals act on these as on escape sequences.
  return sequence.size() == 2 && first == 0xC2 && static_cast<unsigned char>(sequence[1]) < 0xA0;
}

std::string ScaledSize(double value, double base, const char* const* units, size_t count) {
  size_t unit = 0;
  while (value >= base && unit + 1 < count) {
    value /= base;
    ++unit;
  }
  return absl::StrFormat("%.4g%s", value, units[unit]);
}

}  // namespace

std::string EscapeForTerminal(absl::string_view bytes) {
  std::string escaped;
  escaped.reserve(bytes.size());
  while (!bytes.empty()) {
    size_t length = Utf8Length(bytes);
    if (length == 0 || IsControl(bytes.substr(0, length))) {
      for (size_t i = 0; i < (length == 0 ? 1 : length); ++i) {
        absl::StrAppendFormat(&escaped, "\\x%02x", static_cast<unsigned char>(bytes[i]));
      }
      bytes.remove_prefix(length == 0 ? 1 : length);
      continue;
    }
    escaped.append(bytes.data(), length);
    bytes.remove_prefix(length);
  }
  return escaped;
}

std::string Quote(absl::string_view bytes) {
  return absl::StrCat("'", EscapeForTerminal(bytes), "'");
}

bool IsPlainText(absl::string_view bytes) {
  while (!bytes.empty()) {
    const size_t length = Utf8Length(bytes);
    if (length == 0) return false;
    const bool layout = bytes[0] == '\t' || bytes[0] == '\n' || bytes[0] == '\r';
    if (!layout && IsControl(bytes.substr(0, length))) return false;
    bytes.remove_prefix(length);
  }
  return true;
}

std::string DecimalSize(uint64_t bytes) {
  // Docker prints sizes with three significant digits in lists ("1.98MB"), four at most.
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1000.0 && unit + 1 < std::size(kUnits)) {
    value /= 1000.0;
    ++unit;
  }
  return absl::StrFormat("%.3g%s", value, kUnits[unit]);
}

std::string BinarySize(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  return ScaledSize(static_cast<double>(bytes), 1024.0, kUnits, std::size(kUnits));
}

std::string HumanDuration(absl::Duration duration) {
  const int64_t seconds = absl::ToInt64Seconds(duration);
  if (seconds < 1) return "Less than a second";
  if (seconds == 1) return "1 second";
  if (seconds < 60) return absl::StrCat(seconds, " seconds");
  const int64_t minutes = seconds / 60;
  if (minutes == 1) return "About a minute";
  if (minutes < 60) return absl::StrCat(minutes, " minutes");
  // Docker rounds hours to the nearest one.
  const int64_t hours = (seconds + 1800) / 3600;
  if (hours == 1) return "About an hour";
  if (hours < 48) return absl::StrCat(hours, " hours");
  if (hours < 24 * 7 * 2) return absl::StrCat(hours / 24, " days");
  if (hours < 24 * 30 * 2) return absl::StrCat(hours / 24 / 7, " weeks");
  if (hours < 24 * 365 * 2) return absl::StrCat(hours / 24 / 30, " months");
  return absl::StrCat(hours / 24 / 365, " years");
}

std::string FormatRfc3339Nano(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d%ET%H:%M:%E9SZ", time, absl::UTCTimeZone());
}

}  // namespace gantry
