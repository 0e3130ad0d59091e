// How a container's init ended, on disk: what a supervisor that was dead meanwhile reads.
// Format: docs/formats/exit-record.md.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace gantry::shim {

struct ExitRecord {
  int pid = 0;
  int code = 0;    // 128 + signal when a signal ended it.
  int signal = 0;  // 0: it exited by itself.
  absl::Time time;
  std::string reason;      // "exited", "signalled", "oom".
  uint64_t oom_kills = 0;  // Processes of the container killed for lack of memory.
};

// "<bundle>/exit", or "<bundle>/exit.<exec id>".
std::string ExitRecordPath(const std::string& bundle, const std::string& exec_id = "");

// Replaces the file atomically. Not synced: a reboot ends the container and its record with it.
absl::Status WriteExitRecord(const std::string& path, const ExitRecord& record);

// Errors: NotFound — it has not ended; DataLoss — not a record, or its checksum is wrong.
absl::StatusOr<ExitRecord> ReadExitRecord(const std::string& path);

}  // namespace gantry::shim
