#include "lib/base/version.h"

namespace gantry {

absl::string_view Version() { return GANTRY_VERSION; }
absl::string_view BuildTime() { return GANTRY_BUILD_TIME; }
absl::string_view Commit() { return GANTRY_COMMIT; }

}  // namespace gantry
