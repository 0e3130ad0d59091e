// What this runtime can do, for `features` and for the shim's `-info`.
#pragma once

#include <string>

namespace gantry::runtime {

// features.json on one line. Source: contracts/oci/runtime-features.tsv.
std::string WriteFeatures();

}  // namespace gantry::runtime
