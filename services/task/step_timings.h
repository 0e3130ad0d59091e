// How long the steps of a start took, from here and from the shim.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/metrics/registry.h"

namespace gantry::task {

// Steps in order, as microseconds. Thread-compatible.
class StepTimings {
 public:
  StepTimings() : last_(absl::Now()) {}

  // The time since the last mark belongs to `step`.
  void Mark(const std::string& step);
  // Adds the steps a shim reports in field 100 of its answers (docs/formats/shim-timings.md): parts
  // of the step that is marked next; all but the last are parts of the last.
  void AddFromShim(absl::string_view payload);

  // "step=us;>step=us": the trailing metadata `gantry-timings`. Each '>' is a depth more: such a
  // step lies within the next one that is less deep.
  std::string Text() const;
  // Into `gantry_task_start_seconds{step}`.
  void Observe(metrics::Registry& registry) const;

 private:
  struct Step {
    std::string name;
    int64_t microseconds = 0;
    int depth = 0;
  };

  absl::Time last_;
  std::vector<Step> steps_;
};

}  // namespace gantry::task
