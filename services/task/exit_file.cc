#include "services/task/exit_file.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/sys/file.h"

namespace gantry::task {
namespace {

constexpr absl::string_view kFirstLine = "gantry-exit 1\n";
constexpr absl::string_view kChecksumKey = "checksum=";

// FNV-1a, 64 bits.
uint64_t Checksum(absl::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3u;
  return hash;
}

std::string ChecksumLine(absl::string_view body) {
  return absl::StrCat(kChecksumKey, absl::Hex(Checksum(body), absl::kZeroPad16), "\n");
}

}  // namespace

absl::StatusOr<Exit> ReadExitFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string bytes, sys::ReadFile(path, 4096));
  const absl::string_view text = bytes;
  const size_t at = text.rfind(kChecksumKey);
  if (text.substr(0, kFirstLine.size()) != kFirstLine || at == absl::string_view::npos ||
      text.substr(at) != ChecksumLine(text.substr(0, at))) {
    return absl::DataLossError(absl::StrCat("exit record '", path, "' is damaged"));
  }
  Exit exit;
  int64_t nanos = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> pair = absl::StrSplit(line, absl::MaxSplits('=', 1));
    if (pair.size() != 2) continue;
    bool good = true;
    if (pair[0] == "pid") good = absl::SimpleAtoi(pair[1], &exit.pid);
    if (pair[0] == "code") good = absl::SimpleAtoi(pair[1], &exit.code);
    if (pair[0] == "time") good = absl::SimpleAtoi(pair[1], &nanos);
    if (!good) {
      return absl::DataLossError(
          absl::StrCat("exit record '", path, "': '", line, "' is not a number"));
    }
  }
  exit.at = absl::FromUnixNanos(nanos);
  return exit;
}

absl::Status WriteExitFile(const std::string& path, const Exit& exit) {
  const uint32_t signal = exit.code > 128 ? exit.code - 128 : 0;
  std::string text = absl::StrCat(kFirstLine, "pid=", exit.pid, "\ncode=", exit.code, "\nsignal=",
                                  signal, "\ntime=", absl::ToUnixNanos(exit.at),
                                  "\nreason=", signal != 0 ? "signalled" : "exited",
                                  "\noom_kills=0\n");
  absl::StrAppend(&text, ChecksumLine(text));
  return sys::WriteFileAtomically(path, text, 0600);
}

}  // namespace gantry::task
