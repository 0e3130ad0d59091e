// The exit record of a bundle as a supervisor sees it (docs/formats/exit-record.md). The shim
// writes it; we do when the shim could not.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace gantry::task {

struct Exit {
  uint32_t pid = 0;
  uint32_t code = 0;  // As a shell shows it: 128 + signal.
  absl::Time at;
};

// Errors: NotFound — init has not ended, or nobody wrote it down; DataLoss — damaged.
absl::StatusOr<Exit> ReadExitFile(const std::string& path);

absl::Status WriteExitFile(const std::string& path, const Exit& exit);

}  // namespace gantry::task
