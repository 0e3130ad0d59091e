#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace gantry::shim {

// Lower-case hex of the SHA-256 of `bytes`: for names, without a crypto library in a small static
// program.
std::string Sha256Hex(absl::string_view bytes);

}  // namespace gantry::shim
