// Any bytes as a hosts.toml.
#include <cstddef>
#include <cstdint>

#include "services/image/registry_hosts.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)gantry::image::ParseHostSettings(bytes, "/nonexistent");
  return 0;
}
