// Log lines: a constant sentence and its variables as fields, one event a line, on a descriptor.
//
//   log::Info("task exited", {{"container", id}, {"status", code}});
//
// Text:  2026-11-23T10:02:11.123456Z info task exited container=web status=0
// JSON:  {"time":"…","level":"info","msg":"task exited","container":"web","status":"0"}
//
// A line written while a request is being worked on ends with its id: request=4bf92f3577b34da6
// (lib/base/request_id.h).
//
// Values are escaped (SECURITY-RULES 36); never hand in environment values or tokens. One write(2)
// per line, so lines of several threads and processes do not mix. Thread-safe.
#pragma once

#include <initializer_list>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace gantry::log {

enum class Level { kDebug, kInfo, kWarning, kError };
enum class Format { kText, kJson };

// Name and value of one variable; numbers and bools become text.
struct Field {
  Field(absl::string_view field_name, absl::string_view text) : name(field_name), value(text) {}
  Field(absl::string_view field_name, const char* text) : name(field_name), value(text) {}
  Field(absl::string_view field_name, const std::string& text) : name(field_name), value(text) {}
  Field(absl::string_view field_name, bool truth)
      : name(field_name), value(truth ? "true" : "false") {}
  Field(absl::string_view field_name, const absl::Status& status)
      : name(field_name), value(status.ToString()) {}
  template <typename Number>
  Field(absl::string_view field_name, Number number)
      : name(field_name), value(absl::StrCat(number)) {}

  absl::string_view name;
  std::string value;
};
using Fields = std::initializer_list<Field>;

// Where lines go (default: text to descriptor 2, level info). `service` is a field of every line
// when not empty. Called once by main, before threads start.
struct Options {
  int fd = 2;
  Level level = Level::kInfo;
  Format format = Format::kText;
  std::string service;
};
void Configure(const Options& options);

void Write(Level level, absl::string_view sentence, Fields fields);

inline void Debug(absl::string_view sentence, Fields fields = {}) {
  Write(Level::kDebug, sentence, fields);
}
inline void Info(absl::string_view sentence, Fields fields = {}) {
  Write(Level::kInfo, sentence, fields);
}
inline void Warning(absl::string_view sentence, Fields fields = {}) {
  Write(Level::kWarning, sentence, fields);
}
inline void Error(absl::string_view sentence, Fields fields = {}) {
  Write(Level::kError, sentence, fields);
}

// "debug", "info", "warning" (or "warn"), "error". Errors: InvalidArgument.
absl::Status ParseLevel(absl::string_view text, Level* level);

// The line Write would emit, with its newline; for tests.
std::string FormatLine(const Options& options, absl::string_view time, Level level,
                       absl::string_view sentence, Fields fields);

}  // namespace gantry::log
