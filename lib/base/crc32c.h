// CRC-32C (Castagnoli), the checksum of our records on disk: finds torn and rotten bytes, proves
// nothing about who wrote them.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace gantry {

uint32_t Crc32c(absl::string_view bytes);

}  // namespace gantry
