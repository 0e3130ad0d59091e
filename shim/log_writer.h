// Container logs: lines of output into a file, in Docker's or Kubernetes' format, rotated by size.
// Format and rules: docs/formats/container-log.md.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lib/sys/unique_fd.h"

namespace gantry::shim {

enum class LogFormat { kJsonFile, kCri };
enum class StreamName { kStdout, kStderr };

struct LogOptions {
  std::string path;
  LogFormat format = LogFormat::kJsonFile;
  uint64_t max_size_bytes = 0;  // 0: no rotation.
  int max_files = 1;
};

// Takes output as it is read and writes it with one write(2) a call, however many lines. Never
// waits and never fails its caller: what cannot be written is counted, and told in the log when
// writing works again. Single-threaded.
class LogWriter {
 public:
  static constexpr size_t kMaxLineBytes = 16384;

  // Opens or makes the file; a torn last line (the writer was killed) is cut off.
  // Errors: NotFound — no such directory; FailedPrecondition — a symlink, or not a regular file.
  static absl::StatusOr<LogWriter> Open(LogOptions options);

  LogWriter(LogWriter&&) = default;
  LogWriter& operator=(LogWriter&&) = default;
  ~LogWriter();

  // `bytes` of any length with lines ending anywhere. The rest after the last newline is kept for
  // the next call, up to kMaxLineBytes.
  void Write(StreamName stream, absl::string_view bytes);

  // Writes what is kept: the stream has ended.
  void Flush(StreamName stream);

  // Opens the path anew, for rotation by others. The old file stays in use when that fails.
  absl::Status Reopen();

  uint64_t dropped_lines() const { return total_dropped_lines_; }
  uint64_t dropped_bytes() const { return total_dropped_bytes_; }

  // The clock of the lines; for tests.
  void SetClockForTest(std::function<absl::Time()> clock) { clock_ = std::move(clock); }

 private:
  explicit LogWriter(LogOptions options) : options_(std::move(options)) {}
  absl::StatusOr<sys::UniqueFd> OpenFile(const std::string& path, int flags) const;
  absl::Status CutTornLine();
  void Stamp();
  void AppendLine(StreamName stream, absl::string_view line, bool whole);
  void WriteBatch();
  void WriteOut(absl::string_view batch);
  void Drop(absl::string_view lines, int error);
  void AppendDropped();
  void Rotate();

  LogOptions options_;
  sys::UniqueFd file_;
  uint64_t size_ = 0;    // Of whole lines in the file.
  std::string kept_[2];  // Begun lines of stdout and stderr.
  std::string batch_;
  char stamp_[40];  // RFC 3339 with nanoseconds; made once a batch.
  size_t stamp_size_ = 0;
  int64_t stamp_second_ = -1;
  std::function<absl::Time()> clock_;

  // Not yet told in the log.
  uint64_t dropped_lines_ = 0;
  uint64_t dropped_bytes_ = 0;
  int dropped_errno_ = 0;
  uint64_t total_dropped_lines_ = 0;
  uint64_t total_dropped_bytes_ = 0;
};

}  // namespace gantry::shim
