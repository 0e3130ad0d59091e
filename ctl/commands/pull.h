// Fetching an image, for `pull` and for `run` when the image is missing.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "ctl/context.h"

namespace gantry::ctl {

struct PullOptions {
  std::string reference;
  std::string platform;
  // No progress; the caller prints what it wants.
  bool quiet = false;
};

// Pulls, drawing progress on `output`; `name` gets the image's full name. Errors: the image
// service's.
absl::Status PullImage(Context& context, const PullOptions& options, Output& output,
                       std::string* name);

}  // namespace gantry::ctl
