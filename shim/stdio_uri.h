// The URIs that name standard streams in Create and Exec (containerd's contract, section 5.9, and
// our own `gantry-log`, docs/formats/container-log.md).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shim/log_writer.h"

namespace gantry::shim {

enum class AttachMode { kNo, kYes, kWait };

struct StdioUri {
  enum class Kind {
    kNull,    // Nothing named.
    kFifo,    // A path, or fifo:///path.
    kFile,    // file:///path
    kBinary,  // binary:///path?key=value: a program that logs.
    kLog,     // gantry-log:///path?…: our own log, and attach.
  };
  Kind kind = Kind::kNull;
  std::string path;

  bool binary_v2 = false;  // binary-v2: the logger says ready with a byte.
  std::vector<std::pair<std::string, std::string>> arguments;  // kBinary, in their order.

  // kLog.
  bool keep_log = true;
  LogOptions log;
  AttachMode attach = AttachMode::kYes;
  bool open_stdin = false;
};

// Errors: InvalidArgument — no such scheme, key or value; a path that is not absolute.
absl::StatusOr<StdioUri> ParseStdioUri(absl::string_view uri);

}  // namespace gantry::shim
