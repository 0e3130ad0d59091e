// A shim's binary is whatever a container record names: its answer may be any bytes.
#include <cstddef>
#include <cstdint>

#include "services/task/shim_answer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)gantry::task::ParseShimAnswer({reinterpret_cast<const char*>(data), size});
  return 0;
}
