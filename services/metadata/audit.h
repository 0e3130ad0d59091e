#pragma once

#include "absl/status/status.h"
#include "lib/rpc/audit.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

// Reads every value of every table: damaged ones, and records that contradict one another, are
// findings.
absl::Status AuditDatabase(const Database& database, rpc::AuditReport& report);

}  // namespace gantry::metadata
