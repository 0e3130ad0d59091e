#include "runtime/timing.h"

#include <time.h>

#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace gantry::runtime {

int64_t NowMicroseconds() {
  timespec time = {};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return int64_t{time.tv_sec} * 1000000 + time.tv_nsec / 1000;
}

std::vector<Timing> ParseTimings(absl::string_view text) {
  std::vector<Timing> timings;
  for (absl::string_view part : absl::StrSplit(text, ';', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> halves =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    Timing timing{std::string(halves.first)};
    if (absl::SimpleAtoi(halves.second, &timing.microseconds)) timings.push_back(timing);
  }
  return timings;
}

}  // namespace gantry::runtime
