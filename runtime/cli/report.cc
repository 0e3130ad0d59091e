#include "runtime/cli/report.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "lib/base/text.h"
#include "lib/json/json.h"
#include "lib/sys/errno.h"

namespace gantry::runtime {
namespace {

void WriteOnce(int fd, const std::string& line) {
  ssize_t written;
  do {
    written = ::write(fd, line.data(), line.size());
  } while (written < 0 && errno == EINTR);
}

}  // namespace

absl::Status Report::Open(const std::string& path, LogFormat format) {
  format_ = format;
  absl::string_view file = path;
  if (absl::ConsumePrefix(&file, "journald:")) sink_ = Sink::kJournal;
  if (absl::ConsumePrefix(&file, "syslog:")) sink_ = Sink::kSyslog;
  if (sink_ != Sink::kFile) {
    path_ = file.empty() ? "gantry-runtime" : EscapeForTerminal(file);
    return Connect(sink_ == Sink::kJournal ? kJournalSocket : kSyslogSocket);
  }
  absl::ConsumePrefix(&file, "file:");
  path_ = std::string(file);
  if (path_.empty()) return absl::OkStatus();
  fd_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0)
    return sys::ErrnoError(errno, absl::StrCat("open the log '", EscapeForTerminal(path_), "'"));
  return absl::OkStatus();
}

// Entries are datagrams: each arrives whole or not at all.
absl::Status Report::Connect(const char* socket_path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, socket_path, sizeof address.sun_path - 1);
  fd_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd_ >= 0 &&
      ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    return absl::OkStatus();
  }
  absl::Status status =
      sys::ErrnoError(errno, absl::StrCat("--log: reach the log service at '", socket_path,
                                          "'; does it run? A file can be given instead"));
  fd_ = -1;
  return status;
}

void Report::Write(absl::string_view level, absl::string_view message) const {
  if (fd_ < 0) return;
  if (sink_ != Sink::kFile) {
    const int priority = level == "error" ? LOG_ERR : level == "warning" ? LOG_WARNING : LOG_DEBUG;
    // One line: a newline would begin another field of the journal's.
    const std::string text = EscapeForTerminal(message);
    WriteOnce(fd_, sink_ == Sink::kJournal
                       ? absl::StrCat("PRIORITY=", priority, "\nSYSLOG_IDENTIFIER=", path_,
                                      "\nMESSAGE=", text, "\n")
                       : absl::StrCat("<", LOG_DAEMON | priority, ">", path_, ": ", text));
    return;
  }
  const std::string time = FormatRfc3339Nano(absl::Now());
  if (format_ == LogFormat::kJson) {
    json::Writer writer;
    writer.BeginObject();
    writer.Member("level", level);
    writer.Member("msg", message);
    writer.Member("time", time);
    writer.EndObject();
    WriteOnce(fd_, writer.Take() + "\n");
    return;
  }
  WriteOnce(fd_, absl::StrCat("time=\"", time, "\" level=", level, " msg=\"", json::Escape(message),
                              "\"\n"));
}

void Report::Error(absl::string_view message) const {
  Write("error", message);
  WriteOnce(2, absl::StrCat(message, "\n"));
}

void Report::WriteDebug(absl::string_view message) const {
  if (fd_ >= 0) {
    Write("debug", message);
  } else {
    WriteOnce(2, absl::StrCat("debug: ", message, "\n"));
  }
}

void Report::Warning(absl::string_view message) const {
  if (fd_ >= 0) {
    if (format_ == LogFormat::kText || debug_) Write("warning", message);
    return;
  }
  WriteOnce(2, absl::StrCat("warning: ", message, "\n"));
}

}  // namespace gantry::runtime
