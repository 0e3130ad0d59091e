// How long the steps of a start take (Timing in runtime.h), measured on both sides of the clone.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "runtime/runtime.h"

namespace gantry::runtime {

// On the monotonic clock.
int64_t NowMicroseconds();

// "join=120;mounts=800", as init reports its own steps. What does not parse is left out.
std::vector<Timing> ParseTimings(absl::string_view text);

}  // namespace gantry::runtime
