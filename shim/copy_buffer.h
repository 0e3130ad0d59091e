// One buffer for all copying of this single-threaded program. What is in it does not outlive the
// call that put it there.
#pragma once

#include <cstddef>

namespace gantry::shim {

inline constexpr size_t kCopyBytes = 32 << 10;
alignas(4096) inline char copy_buffer[kCopyBytes];

}  // namespace gantry::shim
