#include "shim/log_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"

namespace gantry::shim {
namespace {

constexpr mode_t kLogMode = 0640;
// Memory kept between calls; more is given back, since most containers are silent most of the time.
constexpr size_t kKeepBytes = 4096;
constexpr char kReplacement[] = "\\ufffd";
constexpr char kHexDigits[] = "0123456789abcdef";

// Length of the valid UTF-8 sequence at the front of `bytes`; 0: none.
size_t Utf8Length(absl::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const auto continued = [&](size_t i) { return i < bytes.size() && (at(i) & 0xc0) == 0x80; };
  const uint8_t first = at(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continued(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    if (!continued(1) || !continued(2)) return 0;
    if (first == 0xe0 && at(1) < 0xa0) return 0;  // Overlong.
    if (first == 0xed && at(1) > 0x9f) return 0;  // Surrogates.
    return 3;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    if (!continued(1) || !continued(2) || !continued(3)) return 0;
    if (first == 0xf0 && at(1) < 0x90) return 0;
    if (first == 0xf4 && at(1) > 0x8f) return 0;
    return 4;
  }
  return 0;
}

void AppendJsonText(absl::string_view text, std::string* out) {
  size_t plain = 0;  // Start of the run that needs no escape.
  size_t at = 0;
  const auto flush = [&] { out->append(text.data() + plain, at - plain); };
  while (at < text.size()) {
    const auto byte = static_cast<uint8_t>(text[at]);
    if (byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\') {
      ++at;
      continue;
    }
    if (byte >= 0x80) {
      if (const size_t length = Utf8Length(text.substr(at, 4)); length > 0) {
        at += length;
        continue;
      }
      flush();
      out->append(kReplacement);
    } else {
      flush();
      out->push_back('\\');
      switch (byte) {
        case '"':
        case '\\':
          out->push_back(static_cast<char>(byte));
          break;
        case '\n':
          out->push_back('n');
          break;
        case '\r':
          out->push_back('r');
          break;
        case '\t':
          out->push_back('t');
          break;
        default:
          out->append("u00");
          out->push_back(kHexDigits[byte >> 4]);
          out->push_back(kHexDigits[byte & 15]);
      }
    }
    plain = ++at;
  }
  flush();
}

void GiveBack(std::string* text) {
  text->clear();
  if (text->capacity() > kKeepBytes) std::string().swap(*text);
}

}  // namespace

absl::StatusOr<sys::UniqueFd> LogWriter::OpenFile(const std::string& path, int flags) const {
  sys::UniqueFd file(
      ::open(path.c_str(),
             O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, kLogMode));
  if (!file.ok()) return sys::ErrnoError(errno, absl::StrCat("open the log '", path, "'"));
  struct stat info;
  if (::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("open the log '", path, "': not a regular file; name another path"));
  }
  return file;
}

absl::StatusOr<LogWriter> LogWriter::Open(LogOptions options) {
  RETURN_IF_ERROR(FAILPOINT("shim.log.open"));
  LogWriter writer(std::move(options));
  ASSIGN_OR_RETURN(writer.file_, writer.OpenFile(writer.options_.path, 0));
  RETURN_IF_ERROR(writer.CutTornLine());
  return writer;
}

absl::Status LogWriter::CutTornLine() {
  struct stat info;
  if (::fstat(file_.get(), &info) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("read the size of '", options_.path, "'"));
  }
  size_ = static_cast<uint64_t>(info.st_size);
  char block[512];
  uint64_t end = size_;
  while (end > 0) {
    const size_t want = std::min<uint64_t>(end, sizeof block);
    const ssize_t got = ::pread(file_.get(), block, want, static_cast<off_t>(end - want));
    if (got != static_cast<ssize_t>(want)) return absl::OkStatus();  // Keep it as it is.
    const void* newline = ::memrchr(block, '\n', want);
    if (newline != nullptr) {
      end = end - want + static_cast<size_t>(static_cast<const char*>(newline) - block) + 1;
      break;
    }
    end -= want;
  }
  if (end != size_ && ::ftruncate(file_.get(), static_cast<off_t>(end)) == 0) size_ = end;
  return absl::OkStatus();
}

LogWriter::~LogWriter() {
  if (!file_.ok()) return;
  Flush(StreamName::kStdout);
  Flush(StreamName::kStderr);
}

void LogWriter::Stamp() {
  int64_t second;
  int64_t nanos;
  if (clock_) {
    const int64_t now = absl::ToUnixNanos(clock_());
    second = now / 1'000'000'000;
    nanos = now % 1'000'000'000;
  } else {
    timespec now;
    ::clock_gettime(CLOCK_REALTIME, &now);
    second = now.tv_sec;
    nanos = now.tv_nsec;
  }
  if (second != stamp_second_) {
    stamp_second_ = second;
    const time_t seconds = second;
    tm parts;
    ::gmtime_r(&seconds, &parts);
    stamp_size_ = ::strftime(stamp_, sizeof stamp_, "%Y-%m-%dT%H:%M:%S.", &parts) + 10;
  }
  char* const digits = stamp_ + stamp_size_ - 10;
  for (int i = 8; i >= 0; --i, nanos /= 10) digits[i] = static_cast<char>('0' + nanos % 10);
  digits[9] = 'Z';
}

void LogWriter::Write(StreamName stream, absl::string_view bytes) {
  if (bytes.empty()) return;
  Stamp();
  std::string& kept = kept_[static_cast<int>(stream)];
  while (!bytes.empty()) {
    const size_t room = kMaxLineBytes - kept.size();
    const void* newline = memchr(bytes.data(), '\n', std::min(bytes.size(), room));
    if (newline == nullptr && bytes.size() < room) {
      kept.append(bytes.data(), bytes.size());
      break;
    }
    const size_t take =
        newline == nullptr
            ? room
            : static_cast<size_t>(static_cast<const char*>(newline) - bytes.data()) + 1;
    if (kept.empty()) {
      AppendLine(stream, bytes.substr(0, take), newline != nullptr);
    } else {
      kept.append(bytes.data(), take);
      AppendLine(stream, kept, newline != nullptr);
      GiveBack(&kept);
    }
    bytes.remove_prefix(take);
  }
  WriteBatch();
}

void LogWriter::Flush(StreamName stream) {
  std::string& kept = kept_[static_cast<int>(stream)];
  if (kept.empty() && dropped_lines_ == 0) return;
  Stamp();
  if (!kept.empty()) AppendLine(stream, kept, options_.format == LogFormat::kCri);
  GiveBack(&kept);
  WriteBatch();
}

// `line` ends with its newline when `whole`, unless the stream has ended without one.
void LogWriter::AppendLine(StreamName stream, absl::string_view line, bool whole) {
  const size_t before = batch_.size();
  const absl::string_view name = stream == StreamName::kStdout ? "stdout" : "stderr";
  const absl::string_view stamp(stamp_, stamp_size_);
  if (options_.format == LogFormat::kJsonFile) {
    batch_.append("{\"log\":\"");
    AppendJsonText(line, &batch_);
    batch_.append("\",\"stream\":\"").append(name.data(), name.size());
    batch_.append("\",\"time\":\"").append(stamp.data(), stamp.size()).append("\"}\n");
  } else {
    batch_.append(stamp.data(), stamp.size()).append(" ").append(name.data(), name.size());
    batch_.append(whole ? " F " : " P ").append(line.data(), line.size());
    if (batch_.back() != '\n') batch_.push_back('\n');
  }
  if (options_.max_size_bytes == 0) return;
  // The line that would pass the limit goes into the next file, with all that follow it.
  if (size_ + batch_.size() > options_.max_size_bytes && size_ + before > 0) {
    std::string last = batch_.substr(before);
    batch_.resize(before);
    WriteBatch();
    Rotate();
    batch_ = std::move(last);
  }
}

void LogWriter::AppendDropped() {
  const std::string text = absl::StrCat(
      "[gantry] ", dropped_lines_, " lines (", dropped_bytes_, " bytes) of log dropped, ",
      sys::ErrnoError(dropped_errno_, "").message().substr(2), "\n");
  std::string rest = std::move(batch_);
  batch_.clear();
  const uint64_t limit = std::exchange(options_.max_size_bytes, 0);
  AppendLine(StreamName::kStderr, text, true);
  options_.max_size_bytes = limit;
  const std::string marker = std::move(batch_);
  batch_ = std::move(rest);
  // Alone: only when this line is in the file is the loss told.
  const ssize_t written = ::write(file_.get(), marker.data(), marker.size());
  if (written == static_cast<ssize_t>(marker.size())) {
    size_ += marker.size();
    dropped_lines_ = dropped_bytes_ = 0;
  } else if (written > 0) {
    (void)!::ftruncate(file_.get(), static_cast<off_t>(size_));
  }
}

void LogWriter::WriteBatch() {
  if (dropped_lines_ > 0) AppendDropped();
  if (!batch_.empty()) {
    // Lines behind a gap that could not be told yet belong to the gap.
    if (dropped_lines_ > 0) {
      Drop(batch_, dropped_errno_);
    } else {
      WriteOut(batch_);
    }
  }
  GiveBack(&batch_);
}

void LogWriter::WriteOut(absl::string_view batch) {
  size_t written = 0;
  int error = 0;
  if (const absl::Status status = FAILPOINT("shim.log.write"); !status.ok()) error = ENOSPC;
  while (error == 0 && written < batch.size()) {
    const ssize_t count = ::write(file_.get(), batch.data() + written, batch.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      error = count < 0 ? errno : ENOSPC;
      break;
    }
    written += static_cast<size_t>(count);
  }
  size_t whole = written;
  if (error != 0) {
    // A line in part is taken back, so that every line of the file parses.
    const size_t newline = batch.substr(0, written).rfind('\n');
    whole = newline == absl::string_view::npos ? 0 : newline + 1;
    if (whole < written) (void)!::ftruncate(file_.get(), static_cast<off_t>(size_ + whole));
    Drop(batch.substr(whole), error);
  }
  size_ += whole;
}

void LogWriter::Drop(absl::string_view lines, int error) {
  const uint64_t count = static_cast<uint64_t>(std::count(lines.begin(), lines.end(), '\n'));
  dropped_lines_ += count;
  dropped_bytes_ += lines.size();
  dropped_errno_ = error;
  total_dropped_lines_ += count;
  total_dropped_bytes_ += lines.size();
}

void LogWriter::Rotate() {
  if (options_.max_files <= 1) {
    if (::ftruncate(file_.get(), 0) == 0) size_ = 0;
    return;
  }
  if (!FAILPOINT("shim.log.rotate").ok()) return;
  // The new file first: when it cannot be made, the old one simply grows on.
  const std::string fresh_path = absl::StrCat(options_.path, ".new");
  (void)::unlink(fresh_path.c_str());
  absl::StatusOr<sys::UniqueFd> fresh = OpenFile(fresh_path, O_EXCL);
  if (!fresh.ok()) return;
  for (int i = options_.max_files - 1; i >= 1; --i) {
    const std::string from = i == 1 ? options_.path : absl::StrCat(options_.path, ".", i - 1);
    (void)::rename(from.c_str(), absl::StrCat(options_.path, ".", i).c_str());
  }
  if (::rename(fresh_path.c_str(), options_.path.c_str()) != 0) {
    (void)::rename(absl::StrCat(options_.path, ".1").c_str(), options_.path.c_str());
    (void)::unlink(fresh_path.c_str());
    return;
  }
  file_ = *std::move(fresh);
  size_ = 0;
}

absl::Status LogWriter::Reopen() {
  ASSIGN_OR_RETURN(sys::UniqueFd file, OpenFile(options_.path, 0));
  file_ = std::move(file);
  return CutTornLine();
}

}  // namespace gantry::shim
