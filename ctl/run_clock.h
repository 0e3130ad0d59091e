// Where the time of `run --timing` went: the client's own steps, and within them those that the
// engine, the task service and the shim measured.
//
// Not in it: what the shell does before this program's exec, and reaping it after its end.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gantry/engine/v1/engine.pb.h"

namespace gantry::ctl {

using StepTimings = google::protobuf::RepeatedPtrField<engine::v1::StepTiming>;

// Thread-compatible.
class RunClock {
 public:
  RunClock();

  // Ends the step from this process' exec until now, by the CPU time it used: until its first call
  // it waits for nothing. To be called first, once.
  void StartOfProcess(absl::string_view name);

  // Ends the step that began with the end of the one before; `parts` happened within it.
  void Step(absl::string_view name, const StepTimings& parts = StepTimings());

  // The steps with their parts indented below them, and the sum: of steps alone, since parts are in
  // them.
  std::string Table() const;

 private:
  void Add(absl::string_view name, int64_t nanoseconds, const StepTimings& parts);

  int64_t last_;
  std::vector<engine::v1::StepTiming> steps_;  // A whole before its parts, unlike on the wire.
};

// `timings` with every whole before its parts, all of them deeper by `depth`. On the wire a whole
// follows its parts.
std::vector<engine::v1::StepTiming> WholesFirst(const StepTimings& timings, uint32_t depth);

}  // namespace gantry::ctl
