// Reads what a container wrote, from the files its shim keeps (docs/formats/container-log.md).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gantry/engine/v1/engine.pb.h"
#include "lib/sys/unique_fd.h"

namespace gantry::engine {

struct LogOptions {
  bool want_stdout = true;
  bool want_stderr = true;
  int64_t tail = -1;  // Only the last n lines there are at Open; -1: all.
  absl::Time since = absl::InfinitePast();
  absl::Time until = absl::InfiniteFuture();
};

// Goes through the rotated files, oldest first, into the one being written, and stays there: after
// the end, Next may have more later, also when the file was rotated or emptied meanwhile. A line
// that is not right (a torn write) is skipped. Thread-compatible.
class LogReader {
 public:
  // `path` is the newest file; the older ones are path.1, path.2 … A missing log is an empty one.
  // Errors: what the file system says.
  static absl::StatusOr<LogReader> Open(std::string path, LogOptions options);

  LogReader(LogReader&&) = default;
  LogReader& operator=(LogReader&&) = default;

  // The next entry; false: there is none now. After an entry past `until`: always false, and
  // done().
  absl::StatusOr<bool> Next(v1::LogEntry* entry);

  // Nothing will come any more, whatever is written.
  bool done() const { return done_; }

 private:
  LogReader(std::string path, LogOptions options) : path_(std::move(path)), options_(options) {}

  absl::Status SeekToTail();
  absl::Status OpenFile(const std::string& name, off_t offset);
  // The next complete line, without its newline.
  absl::StatusOr<bool> NextLine(std::string* line);
  absl::StatusOr<bool> Fill();
  absl::StatusOr<bool> FollowRotation();
  // Names of the files there are, newest first.
  std::vector<std::string> Files() const;

  std::string path_;
  LogOptions options_;
  sys::UniqueFd file_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  off_t offset_ = 0;  // Of the end of buffer_ in the file.
  std::string buffer_;
  size_t consumed_ = 0;
  bool done_ = false;
};

// One line of a json-file log. Errors: InvalidArgument — it is none.
absl::StatusOr<v1::LogEntry> ParseLogLine(absl::string_view line);

}  // namespace gantry::engine
