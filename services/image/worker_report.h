// What the unpack worker tells the daemon, as bytes on a pipe. The worker has read hostile bytes,
// so the reader trusts nothing about the form.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/archive/unpack.h"

namespace gantry::image {

// More than this from a worker is a broken one.
inline constexpr size_t kMaxReportBytes = 64 << 20;

std::string EncodeReport(const absl::StatusOr<archive::UnpackResult>& result);

// The result, or the worker's error. Errors: Internal — not a whole report.
absl::StatusOr<archive::UnpackResult> DecodeReport(absl::string_view bytes);

}  // namespace gantry::image
