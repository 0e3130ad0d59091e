// How failures and warnings leave the program: containerd reads the JSON log, conmon stderr, podman
// the whole log as one object, so there is exactly one error entry and it is also on stderr.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gantry::runtime {

// Where local programs reach the journal and syslog.
inline constexpr char kJournalSocket[] = "/run/systemd/journal/socket";
inline constexpr char kSyslogSocket[] = "/dev/log";

enum class LogFormat { kText, kJson };

class Report {
 public:
  // `path` may be empty (stderr only), begin with "file:", or be "journald:NAME" or "syslog:NAME",
  // as crun has them: entries then go there under NAME, without a format. Errors: the file cannot
  // be opened; nobody listens.
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
  enum class Sink { kFile, kJournal, kSyslog };

  absl::Status Connect(const char* socket_path);
  void WriteDebug(absl::string_view message) const;
  void Write(absl::string_view level, absl::string_view message) const;

  Sink sink_ = Sink::kFile;
  std::string path_;  // Or the name under which entries go to the journal.
  int fd_ = -1;
  LogFormat format_ = LogFormat::kText;
  bool debug_ = false;
};

}  // namespace gantry::runtime
