#include "shim/stdio_uri.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"

namespace gantry::shim {
namespace {

absl::Status Wrong(absl::string_view uri, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("stdio '", uri.substr(0, 512), "': ", why));
}

int HexDigit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

absl::StatusOr<std::string> PercentDecode(absl::string_view text, bool plus_is_space) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus_is_space) {
      decoded.push_back(' ');
    } else if (text[i] == '%') {
      const int high = i + 2 < text.size() ? HexDigit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? HexDigit(text[i + 2]) : -1;
      if (high < 0 || low < 0) return Wrong(text, "'%' without two hex digits");
      decoded.push_back(static_cast<char>(high * 16 + low));
      i += 2;
    } else {
      decoded.push_back(text[i]);
    }
  }
  if (decoded.find('\0') != std::string::npos) return Wrong(text, "holds a zero byte");
  return decoded;
}

absl::Status SetLogOption(absl::string_view uri, const std::string& key, const std::string& value,
                          StdioUri* parsed) {
  if (key == "format") {
    if (value == "json-file") {
      parsed->log.format = LogFormat::kJsonFile;
    } else if (value == "cri") {
      parsed->log.format = LogFormat::kCri;
    } else if (value == "none") {
      parsed->keep_log = false;
    } else {
      return Wrong(uri, absl::StrCat("format '", value, "'; use json-file, cri or none"));
    }
  } else if (key == "max-size") {
    if (!absl::SimpleAtoi(value, &parsed->log.max_size_bytes)) {
      return Wrong(uri, absl::StrCat("max-size '", value, "' is not a number of bytes"));
    }
  } else if (key == "max-file") {
    if (!absl::SimpleAtoi(value, &parsed->log.max_files) || parsed->log.max_files < 1 ||
        parsed->log.max_files > 1000) {
      return Wrong(uri, absl::StrCat("max-file '", value, "'; use 1 to 1000"));
    }
  } else if (key == "attach") {
    if (value == "yes") {
      parsed->attach = AttachMode::kYes;
    } else if (value == "wait") {
      parsed->attach = AttachMode::kWait;
    } else if (value == "no") {
      parsed->attach = AttachMode::kNo;
    } else {
      return Wrong(uri, absl::StrCat("attach '", value, "'; use yes, wait or no"));
    }
  } else if (key == "stdin") {
    if (value != "0" && value != "1")
      return Wrong(uri, absl::StrCat("stdin '", value, "'; use 0 or 1"));
    parsed->open_stdin = value == "1";
  } else {
    return Wrong(uri, absl::StrCat("unknown key '", key, "'"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StdioUri> ParseStdioUri(absl::string_view uri) {
  StdioUri parsed;
  if (uri.empty()) return parsed;
  const size_t colon = uri.find("://");
  if (colon == absl::string_view::npos) {
    // A bare path is taken as it is, whatever bytes it has.
    if (uri[0] != '/') return Wrong(uri, "a path must be absolute");
    parsed.kind = StdioUri::Kind::kFifo;
    parsed.path = std::string(uri);
    return parsed;
  }
  const absl::string_view scheme = uri.substr(0, colon);
  const std::pair<absl::string_view, absl::string_view> halves =
      absl::StrSplit(uri.substr(colon + 3), absl::MaxSplits('?', 1));
  ASSIGN_OR_RETURN(parsed.path, PercentDecode(halves.first, /*plus_is_space=*/false));
  if (parsed.path.empty() || parsed.path[0] != '/') return Wrong(uri, "a path must be absolute");
  if (scheme == "fifo") {
    parsed.kind = StdioUri::Kind::kFifo;
  } else if (scheme == "file") {
    parsed.kind = StdioUri::Kind::kFile;
  } else if (scheme == "binary" || scheme == "binary-v2") {
    parsed.kind = StdioUri::Kind::kBinary;
    parsed.binary_v2 = scheme == "binary-v2";
  } else if (scheme == "gantry-log") {
    parsed.kind = StdioUri::Kind::kLog;
    parsed.log.path = parsed.path;
  } else {
    return Wrong(uri, absl::StrCat("unknown scheme '", scheme,
                                   "'; use fifo, file, binary, binary-v2 or gantry-log"));
  }
  if (halves.second.empty()) return parsed;
  for (absl::string_view pair : absl::StrSplit(halves.second, '&', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> item =
        absl::StrSplit(pair, absl::MaxSplits('=', 1));
    ASSIGN_OR_RETURN(std::string key, PercentDecode(item.first, /*plus_is_space=*/true));
    ASSIGN_OR_RETURN(std::string value, PercentDecode(item.second, /*plus_is_space=*/true));
    if (parsed.kind == StdioUri::Kind::kLog) {
      RETURN_IF_ERROR(SetLogOption(uri, key, value, &parsed));
    } else if (parsed.kind == StdioUri::Kind::kBinary) {
      parsed.arguments.emplace_back(std::move(key), std::move(value));
    }
  }
  return parsed;
}

}  // namespace gantry::shim
