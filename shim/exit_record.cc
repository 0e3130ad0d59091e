#include "shim/exit_record.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"

namespace gantry::shim {
namespace {

constexpr absl::string_view kFirstLine = "gantry-exit 1\n";
constexpr size_t kMaxRecordBytes = 4096;

// FNV-1a, 64 bits: guards against a torn or mixed-up file, not against an attacker, who would have
// to be root.
uint64_t Checksum(absl::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3u;
  return hash;
}

absl::Status Damaged(const std::string& path, absl::string_view why) {
  return absl::DataLossError(absl::StrCat("exit record '", path, "': ", why));
}

}  // namespace

std::string ExitRecordPath(const std::string& bundle, const std::string& exec_id) {
  return exec_id.empty() ? absl::StrCat(bundle, "/exit") : absl::StrCat(bundle, "/exit.", exec_id);
}

absl::Status WriteExitRecord(const std::string& path, const ExitRecord& record) {
  std::string text(kFirstLine);
  absl::StrAppend(&text, "pid=", record.pid, "\ncode=", record.code, "\nsignal=", record.signal,
                  "\ntime=", absl::ToUnixNanos(record.time), "\nreason=", record.reason,
                  "\noom_kills=", record.oom_kills, "\n");
  absl::StrAppend(&text, "checksum=", absl::Hex(Checksum(text), absl::kZeroPad16), "\n");
  return sys::WriteFileAtomically(path, text, 0600);
}

absl::StatusOr<ExitRecord> ReadExitRecord(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, sys::ReadFile(path, kMaxRecordBytes));
  absl::string_view body = text;
  if (body.substr(0, kFirstLine.size()) != kFirstLine) {
    return Damaged(path, "not in version 1 of the format");
  }
  const size_t at = body.rfind("checksum=");
  if (at == absl::string_view::npos ||
      body.substr(at) !=
          absl::StrCat("checksum=", absl::Hex(Checksum(body.substr(0, at)), absl::kZeroPad16),
                       "\n")) {
    return Damaged(path, "wrong checksum");
  }
  ExitRecord record;
  int64_t nanos = 0;
  for (absl::string_view line : absl::StrSplit(
           body.substr(kFirstLine.size(), at - kFirstLine.size()), '\n', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(line, absl::MaxSplits('=', 1));
    bool good = true;
    if (pair.first == "pid") good = absl::SimpleAtoi(pair.second, &record.pid);
    if (pair.first == "code") good = absl::SimpleAtoi(pair.second, &record.code);
    if (pair.first == "signal") good = absl::SimpleAtoi(pair.second, &record.signal);
    if (pair.first == "time") good = absl::SimpleAtoi(pair.second, &nanos);
    if (pair.first == "reason") record.reason = std::string(pair.second);
    if (pair.first == "oom_kills") good = absl::SimpleAtoi(pair.second, &record.oom_kills);
    if (!good) return Damaged(path, absl::StrCat("'", line, "' is not a number"));
  }
  record.time = absl::FromUnixNanos(nanos);
  return record;
}

}  // namespace gantry::shim
