#include "lib/log/log.h"

#include <errno.h>
#include <unistd.h>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/base/request_id.h"
#include "lib/base/text.h"

namespace gantry::log {
namespace {

// Process-wide by nature, like descriptor 2 itself; set once before threads start.
Options& Current() {
  static Options* options = new Options();
  return *options;
}

constexpr absl::string_view Name(Level level) {
  switch (level) {
    case Level::kDebug:
      return "debug";
    case Level::kInfo:
      return "info";
    case Level::kWarning:
      return "warning";
    case Level::kError:
      return "error";
  }
  return "error";
}

std::string JsonString(absl::string_view text) {
  std::string quoted = "\"";
  for (char c : EscapeForTerminal(text)) {
    if (c == '"' || c == '\\') quoted.push_back('\\');
    quoted.push_back(c);
  }
  quoted.push_back('"');
  return quoted;
}

std::string TextValue(absl::string_view text) {
  const std::string escaped = EscapeForTerminal(text);
  if (!escaped.empty() && escaped.find_first_of(" =\"") == std::string::npos) return escaped;
  std::string quoted = "\"";
  for (char c : escaped) {
    if (c == '"') quoted.push_back('\\');
    quoted.push_back(c);
  }
  quoted.push_back('"');
  return quoted;
}

}  // namespace

void Configure(const Options& options) { Current() = options; }

std::string FormatLine(const Options& options, absl::string_view time, Level level,
                       absl::string_view sentence, Fields fields) {
  const std::string& request = CurrentRequestId();
  std::string line;
  if (options.format == Format::kJson) {
    absl::StrAppend(&line, "{\"time\":\"", time, "\",\"level\":\"", Name(level),
                    "\",\"msg\":", JsonString(sentence));
    if (!options.service.empty()) {
      absl::StrAppend(&line, ",\"service\":", JsonString(options.service));
    }
    for (const Field& field : fields) {
      absl::StrAppend(&line, ",", JsonString(field.name), ":", JsonString(field.value));
    }
    if (!request.empty()) absl::StrAppend(&line, ",\"request\":", JsonString(request));
    absl::StrAppend(&line, "}\n");
    return line;
  }
  absl::StrAppend(&line, time, " ", Name(level), " ");
  if (!options.service.empty()) absl::StrAppend(&line, options.service, ": ");
  absl::StrAppend(&line, sentence);
  for (const Field& field : fields) {
    absl::StrAppend(&line, " ", field.name, "=", TextValue(field.value));
  }
  if (!request.empty()) absl::StrAppend(&line, " request=", TextValue(request));
  line.push_back('\n');
  return line;
}

void Write(Level level, absl::string_view sentence, Fields fields) {
  const Options& options = Current();
  if (level < options.level) return;
  const std::string time =
      absl::FormatTime("%Y-%m-%d%ET%H:%M:%E6SZ", absl::Now(), absl::UTCTimeZone());
  const std::string line = FormatLine(options, time, level, sentence, fields);
  ssize_t written;
  do {
    written = ::write(options.fd, line.data(), line.size());
  } while (written < 0 && errno == EINTR);
}

absl::Status ParseLevel(absl::string_view text, Level* level) {
  if (text == "debug") {
    *level = Level::kDebug;
  } else if (text == "info") {
    *level = Level::kInfo;
  } else if (text == "warning" || text == "warn") {
    *level = Level::kWarning;
  } else if (text == "error") {
    *level = Level::kError;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("log level '", text, "' is unknown; use debug, info, warning or error"));
  }
  return absl::OkStatus();
}

}  // namespace gantry::log
