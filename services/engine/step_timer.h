// How long each step of a start or a removal took.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gantry/engine/v1/engine.pb.h"

namespace gantry::engine {

// Thread-compatible.
class StepTimer {
 public:
  StepTimer() : StepTimer(absl::Now()) {}
  // The first step began at `began`.
  explicit StepTimer(absl::Time began) : last_(absl::ToUnixNanos(began)) {}

  // Ends a step that began when the one before it ended.
  void Step(absl::string_view name) {
    const int64_t now = absl::GetCurrentTimeNanos();
    Add(name, now - last_);
    last_ = now;
  }

  // Steps that others measured: parts of the step that ends next.
  void Add(const std::vector<v1::StepTiming>& steps) {
    for (const v1::StepTiming& step : steps) {
      steps_.push_back(step);
      steps_.back().set_depth(step.depth() + 1);
    }
  }

  const std::vector<v1::StepTiming>& steps() const { return steps_; }

 private:
  void Add(absl::string_view name, int64_t nanoseconds) {
    v1::StepTiming& step = steps_.emplace_back();
    step.set_step(std::string(name));
    step.set_microseconds(nanoseconds < 0 ? 0 : static_cast<uint64_t>(nanoseconds / 1000));
  }

  int64_t last_;
  std::vector<v1::StepTiming> steps_;
};

}  // namespace gantry::engine
