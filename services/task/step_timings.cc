#include "services/task/step_timings.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lib/ttrpc/minipb.h"

namespace gantry::task {
namespace {

constexpr uint32_t kShimTimingsField = 100;
constexpr size_t kMaxSteps = 64;

// A step is a metric's label and stands in a header: a strange shim may not write what it likes.
bool IsStepName(absl::string_view name) {
  return !name.empty() && name.size() <= 48 &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

}  // namespace

void StepTimings::Mark(const std::string& step) {
  const absl::Time now = absl::Now();
  steps_.push_back({.name = step, .microseconds = absl::ToInt64Microseconds(now - last_)});
  last_ = now;
}

void StepTimings::AddFromShim(absl::string_view payload) {
  const size_t before = steps_.size();
  for (pb::Reader reader(payload); reader.Next();) {
    if (reader.field() != kShimTimingsField || reader.type() != pb::WireType::kBytes) continue;
    std::string step;
    int64_t microseconds = 0;
    for (pb::Reader entry(reader.bytes()); entry.Next();) {
      if (entry.field() == 1) step = entry.text();
      if (entry.field() == 2) microseconds = entry.signed_varint();
    }
    if (IsStepName(step) && microseconds >= 0 && steps_.size() < kMaxSteps) {
      steps_.push_back({.name = step, .microseconds = microseconds, .depth = 2});
    }
  }
  if (steps_.size() > before) steps_.back().depth = 1;
}

std::string StepTimings::Text() const {
  std::string text;
  for (const Step& step : steps_) {
    absl::StrAppend(&text, text.empty() ? "" : ";", std::string(step.depth, '>'), step.name, "=",
                    step.microseconds);
  }
  return text;
}

void StepTimings::Observe(metrics::Registry& registry) const {
  for (const Step& step : steps_) {
    registry
        .GetHistogram("gantry_task_start_seconds", "Steps of creating and starting a task.",
                      {{"step", step.name}})
        .Observe(static_cast<double>(step.microseconds) / 1e6);
  }
}

}  // namespace gantry::task
