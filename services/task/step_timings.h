// How long the steps of a start took, from here and from the shim.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
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
  // Adds the steps a shim reports in field 100 of its answers (docs/formats/shim-timings.md).
  void AddFromShim(absl::string_view payload);

  // "step=us;step=us": the trailing metadata `gantry-timings`.
  std::string Text() const;
  // Into `gantry_task_start_seconds{step}`.
  void Observe(metrics::Registry& registry) const;

 private:
  absl::Time last_;
  std::vector<std::pair<std::string, int64_t>> steps_;
};

}  // namespace gantry::task
