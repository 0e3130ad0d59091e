#pragma once

#include <memory>

#include "shim/oci_runtime.h"

namespace gantry::shim {

// The runtime library in this process. Everything answers at once.
std::unique_ptr<OciRuntime> MakeLibraryRuntime(RuntimeConfig config);

}  // namespace gantry::shim
