// Numbers and ids made from the place where a suite keeps its run-time state. They are the same in
// each life of the engine and differ between suites of one host.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace gantry::network {

// FNV-1a, 64 bits. Not a secret, only a name.
uint64_t StableHash(absl::string_view text);

// The interface group of whatever belongs to the owner of `directory`. The kernel's default is 0
// and people use small numbers, so the upper half is ours.
uint32_t InterfaceGroup(absl::string_view directory);

// 64 hex digits.
std::string StableId(absl::string_view text);

}  // namespace gantry::network
