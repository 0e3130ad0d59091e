#include "ctl/run_clock.h"

#include <time.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "ctl/table.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

// Deeper than anything that measures; a peer may write what it likes.
constexpr uint32_t kMaxDepth = 8;

int64_t Nanoseconds(clockid_t clock) {
  timespec now = {};
  ::clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

std::string Milliseconds(uint64_t microseconds) {
  return absl::StrFormat("%.3f ms", static_cast<double>(microseconds) / 1000);
}

}  // namespace

RunClock::RunClock() : last_(Nanoseconds(CLOCK_MONOTONIC)) {}

void RunClock::StartOfProcess(absl::string_view name) {
  last_ = Nanoseconds(CLOCK_MONOTONIC);
  Add(name, Nanoseconds(CLOCK_PROCESS_CPUTIME_ID), StepTimings());
}

void RunClock::Step(absl::string_view name, const StepTimings& parts) {
  const int64_t now = Nanoseconds(CLOCK_MONOTONIC);
  Add(name, now - last_, parts);
  last_ = now;
}

void RunClock::Add(absl::string_view name, int64_t nanoseconds, const StepTimings& parts) {
  engine::v1::StepTiming& step = steps_.emplace_back();
  step.set_step(std::string(name));
  step.set_microseconds(static_cast<uint64_t>(nanoseconds / 1000));
  std::vector<engine::v1::StepTiming> within = WholesFirst(parts, 1);
  std::move(within.begin(), within.end(), std::back_inserter(steps_));
}

std::string RunClock::Table() const {
  std::vector<std::vector<std::string>> rows = {{"STEP", "TIME"}};
  uint64_t total = 0;
  for (const engine::v1::StepTiming& step : steps_) {
    if (step.depth() == 0) total += step.microseconds();
    rows.push_back(
        {absl::StrCat(std::string(2 * step.depth(), ' '), EscapeForTerminal(step.step())),
         Milliseconds(step.microseconds())});
  }
  rows.push_back({"total", Milliseconds(total)});
  return FormatTable(rows);
}

std::vector<engine::v1::StepTiming> WholesFirst(const StepTimings& timings, uint32_t depth) {
  // Each a whole, followed by what is below it.
  std::vector<std::vector<engine::v1::StepTiming>> trees;
  for (const engine::v1::StepTiming& timing : timings) {
    std::vector<engine::v1::StepTiming> tree = {timing};
    const uint32_t own = std::min(timing.depth(), kMaxDepth) + depth;
    tree[0].set_depth(own);
    auto first = trees.end();
    while (first != trees.begin() && std::prev(first)->front().depth() > own) --first;
    for (auto part = first; part != trees.end(); ++part) {
      std::move(part->begin(), part->end(), std::back_inserter(tree));
    }
    trees.erase(first, trees.end());
    trees.push_back(std::move(tree));
  }
  std::vector<engine::v1::StepTiming> ordered;
  for (auto& tree : trees) std::move(tree.begin(), tree.end(), std::back_inserter(ordered));
  return ordered;
}

}  // namespace gantry::ctl
