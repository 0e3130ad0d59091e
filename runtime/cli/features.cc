#include "runtime/features.h"

#include "lib/base/status.h"
#include "lib/json/json.h"
#include "runtime/cli/commands.h"

namespace gantry::runtime {

absl::StatusOr<int> RunFeatures(const Global&, const Arguments&) {
  RETURN_IF_ERROR(Print(json::Indent(WriteFeatures()) + "\n"));
  return 0;
}

}  // namespace gantry::runtime
