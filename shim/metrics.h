// Numbers of a cgroup as containerd's clients want them.
#pragma once

#include "absl/status/statusor.h"
#include "lib/cgroup/cgroup.h"
#include "shim/wire.h"

namespace gantry::shim {

// io.containerd.cgroups.v1.Metrics, or v2.Metrics on cgroup v2. Errors: NotFound — no cgroup.
absl::StatusOr<Any> ReadMetrics(const cgroup::Cgroup& cgroup);

// The messages alone, for tests.
std::string WriteMetricsV1(const cgroup::StatsV1& stats);
std::string WriteMetricsV2(const cgroup::StatsV2& stats);

}  // namespace gantry::shim
