// A container's statistics as runc's `events` prints them: the members of "data".
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "lib/cgroup/cgroup.h"
#include "lib/json/json.h"

namespace gantry::runtime {

// Members into the object that is open. Errors: NotFound — the cgroup is gone.
absl::Status WriteStatsV1(const cgroup::Cgroup& cgroup, json::Writer& writer);
absl::Status WriteStatsV2(const cgroup::Cgroup& cgroup, json::Writer& writer);

// "some avg10=0.00 … total=0\nfull …" as an object; nothing at all for a kernel without pressure
// information, whose text is empty.
void WritePressure(absl::string_view text, json::Writer& writer);

}  // namespace gantry::runtime
