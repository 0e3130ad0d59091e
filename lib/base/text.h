// Text for people: escaping of untrusted bytes, sizes and ages as Docker prints them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace gantry {

// `bytes` with control bytes and invalid UTF-8 written as \xNN, so that nothing untrusted reaches a
// terminal or a log line raw (SECURITY-RULES 36). Newline and tab are escaped too.
std::string EscapeForTerminal(absl::string_view bytes);

// The same in single quotes, as error messages show values.
std::string Quote(absl::string_view bytes);

// Whether `bytes` is UTF-8 without control characters other than tab, newline and carriage return.
bool IsPlainText(absl::string_view bytes);

// Decimal units with up to four significant digits, as in `docker images`: "1.98MB".
std::string DecimalSize(uint64_t bytes);

// Binary units with up to four significant digits, as in `docker stats`: "320KiB".
std::string BinarySize(uint64_t bytes);

// "Less than a second", "5 seconds", "About a minute", "3 hours" … as in `docker ps`, without
// "ago".
std::string HumanDuration(absl::Duration duration);

// RFC 3339 with nanoseconds in UTC: "2026-11-23T10:02:11.000000001Z".
std::string FormatRfc3339Nano(absl::Time time);

}  // namespace gantry
