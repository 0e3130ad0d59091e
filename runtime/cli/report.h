// How failures and warnings leave the program: containerd reads the JSON log, conmon stderr, podman
// the whole log as one object, so there is exactly one error entry and it is also on stderr.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gantry::runtime {

enum class LogFormat { kText, kJson };

class Report {
 public:
  // `path` may be empty (stderr only) or begin with "file:". Errors: the file cannot be opened.
  absl::Status Open(const std::string& path, LogFormat format);
  void set_debug(bool debug) { debug_ = debug; }

  // To the log and, bare, to stderr.
  void Error(absl::string_view message) const;
  // To the log only when there is one and it is not to hold a single object: warnings beside an
  // error would hide it from podman; without a log to stderr.
  void Warning(absl::string_view message) const;

  // With --debug only; to the log, or without one to stderr.
  template <typename MakeText>
  void Debug(MakeText make_text) const {
    if (debug_) WriteDebug(make_text());
  }

 private:
  void WriteDebug(absl::string_view message) const;
  void Write(absl::string_view level, absl::string_view message) const;

  std::string path_;
  int fd_ = -1;
  LogFormat format_ = LogFormat::kText;
  bool debug_ = false;
};

}  // namespace gantry::runtime
