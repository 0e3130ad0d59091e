#include "services/engine/log_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/json/json.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "services/engine/container.h"

namespace gantry::engine {
namespace {

constexpr size_t kChunk = 64 << 10;
constexpr size_t kMaxLine = 1 << 20;  // The shim writes lines of at most some 100 KiB.
constexpr int kMaxFiles = 1000;

}  // namespace

absl::StatusOr<v1::LogEntry> ParseLogLine(absl::string_view line) {
  ASSIGN_OR_RETURN(json::Document document, json::Document::Parse(line, kMaxLine));
  const json::Value root = document.root();
  std::string text, stream, time_text;
  RETURN_IF_ERROR(root.Required("log", &text));
  RETURN_IF_ERROR(root.Optional("stream", &stream));
  RETURN_IF_ERROR(root.Required("time", &time_text));
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, time_text, &time, &error)) {
    return absl::InvalidArgumentError(absl::StrCat("time: ", error));
  }
  v1::LogEntry entry;
  entry.set_stream(stream == "stderr" ? v1::LogEntry::STDERR : v1::LogEntry::STDOUT);
  *entry.mutable_time() = ToProto(time);
  entry.set_data(std::move(text));
  return entry;
}

absl::StatusOr<LogReader> LogReader::Open(std::string path, LogOptions options) {
  LogReader reader(std::move(path), options);
  if (options.tail == 0) {
    // From the end of what is there now.
    struct stat info = {};
    if (::stat(reader.path_.c_str(), &info) == 0) {
      RETURN_IF_ERROR(reader.OpenFile(reader.path_, info.st_size));
    }
    return reader;
  }
  if (options.tail > 0) {
    RETURN_IF_ERROR(reader.SeekToTail());
    return reader;
  }
  const std::vector<std::string> files = reader.Files();
  if (!files.empty()) RETURN_IF_ERROR(reader.OpenFile(files.back(), 0));
  return reader;
}

std::vector<std::string> LogReader::Files() const {
  std::vector<std::string> files;
  if (sys::Exists(path_)) files.push_back(path_);
  for (int i = 1; i < kMaxFiles; ++i) {
    std::string name = absl::StrCat(path_, ".", i);
    if (!sys::Exists(name)) break;
    files.push_back(std::move(name));
  }
  return files;
}

// Reads backwards, so that the last lines of a large log cost no more than they are long.
absl::Status LogReader::SeekToTail() {
  int64_t wanted = options_.tail;
  const std::vector<std::string> files = Files();
  for (const std::string& name : files) {
    absl::StatusOr<sys::UniqueFd> file = sys::Open(name, O_RDONLY | O_NOFOLLOW);
    if (absl::IsNotFound(file.status())) continue;
    RETURN_IF_ERROR(file.status());
    struct stat info = {};
    if (::fstat(file->get(), &info) != 0)
      return sys::ErrnoError(errno, absl::StrCat("stat ", name));
    std::string chunk(kChunk, '\0');
    // Newlines end lines: the one at the very end of the file begins none.
    for (off_t end = info.st_size; end > 0;) {
      const off_t begin = std::max<off_t>(0, end - static_cast<off_t>(kChunk));
      const ssize_t got =
          ::pread(file->get(), chunk.data(), static_cast<size_t>(end - begin), begin);
      if (got < 0) return sys::ErrnoError(errno, absl::StrCat("read ", name));
      for (ssize_t at = got - 1; at >= 0; --at) {
        if (chunk[static_cast<size_t>(at)] != '\n' || begin + at + 1 == info.st_size) continue;
        if (--wanted == 0) return OpenFile(name, begin + at + 1);
      }
      end = begin;
    }
    // The first line of a file has no newline before it.
    if (info.st_size > 0 && --wanted == 0) return OpenFile(name, 0);
  }
  return files.empty() ? absl::OkStatus() : OpenFile(files.back(), 0);
}

absl::Status LogReader::OpenFile(const std::string& name, off_t offset) {
  ASSIGN_OR_RETURN(sys::UniqueFd file, sys::Open(name, O_RDONLY | O_NOFOLLOW));
  struct stat info = {};
  if (::fstat(file.get(), &info) != 0) return sys::ErrnoError(errno, absl::StrCat("stat ", name));
  file_ = std::move(file);
  device_ = info.st_dev;
  inode_ = info.st_ino;
  offset_ = offset;
  buffer_.clear();
  consumed_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<bool> LogReader::Fill() {
  buffer_.erase(0, consumed_);
  consumed_ = 0;
  if (buffer_.size() > kMaxLine) buffer_.clear();  // Not a line of ours: resynchronise.
  const size_t had = buffer_.size();
  buffer_.resize(had + kChunk);
  ssize_t got;
  do {
    got = ::pread(file_.get(), buffer_.data() + had, kChunk, offset_);
  } while (got < 0 && errno == EINTR);
  buffer_.resize(had + static_cast<size_t>(std::max<ssize_t>(got, 0)));
  if (got < 0) return sys::ErrnoError(errno, absl::StrCat("read the log '", path_, "'"));
  offset_ += got;
  return got > 0;
}

// At the end of the open file: is there a newer one to go on with?
absl::StatusOr<bool> LogReader::FollowRotation() {
  if (!file_.ok()) {
    const std::vector<std::string> files = Files();
    if (files.empty()) return false;
    RETURN_IF_ERROR(OpenFile(files.back(), 0));
    return true;
  }
  struct stat mine = {};
  if (::fstat(file_.get(), &mine) == 0 && mine.st_size < offset_) {
    // Emptied in place: one file only is kept.
    offset_ = 0;
    buffer_.clear();
    consumed_ = 0;
    return true;
  }
  struct stat info = {};
  if (::stat(path_.c_str(), &info) != 0 || (info.st_ino == inode_ && info.st_dev == device_)) {
    return false;
  }
  // It has been rotated away. Something may have been written between our last read and that.
  ASSIGN_OR_RETURN(bool more, Fill());
  if (more) return true;
  const std::vector<std::string> files = Files();
  std::string next = files.empty() ? path_ : files.back();  // Ours is gone: the oldest there is.
  for (size_t i = 1; i < files.size(); ++i) {
    if (::stat(files[i].c_str(), &info) == 0 && info.st_ino == inode_ && info.st_dev == device_) {
      next = files[i - 1];
      break;
    }
  }
  const absl::Status opened = OpenFile(next, 0);
  if (absl::IsNotFound(opened)) return false;  // Rotated again just now; the next look finds it.
  RETURN_IF_ERROR(opened);
  return true;
}

absl::StatusOr<bool> LogReader::NextLine(std::string* line) {
  while (true) {
    const size_t newline = buffer_.find('\n', consumed_);
    if (newline != std::string::npos) {
      line->assign(buffer_, consumed_, newline - consumed_);
      consumed_ = newline + 1;
      return true;
    }
    if (file_.ok()) {
      ASSIGN_OR_RETURN(bool more, Fill());
      if (more) continue;
    }
    ASSIGN_OR_RETURN(bool newer, FollowRotation());
    if (!newer) return false;
  }
}

absl::StatusOr<bool> LogReader::Next(v1::LogEntry* entry) {
  std::string line;
  while (!done_) {
    ASSIGN_OR_RETURN(bool got, NextLine(&line));
    if (!got) return false;
    absl::StatusOr<v1::LogEntry> parsed = ParseLogLine(line);
    if (!parsed.ok()) continue;
    const absl::Time time = FromProto(parsed->time());
    if (time > options_.until) {
      done_ = true;
      return false;
    }
    if (time < options_.since) continue;
    if (parsed->stream() == v1::LogEntry::STDERR ? !options_.want_stderr : !options_.want_stdout) {
      continue;
    }
    *entry = *std::move(parsed);
    return true;
  }
  return false;
}

}  // namespace gantry::engine
