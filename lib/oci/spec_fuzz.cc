// Any bytes as config.json: refused, or read into a Spec that its own document reads back the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "lib/oci/spec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  auto spec = gantry::oci::ParseSpec(bytes);
  if (spec.ok()) {
    const std::string document = gantry::oci::WriteSpec(*spec);
    auto again = gantry::oci::ParseSpec(document);
    if (!again.ok() || gantry::oci::WriteSpec(*again) != document) std::abort();
  }
  (void)gantry::oci::ParseProcess(bytes);
  (void)gantry::oci::ParseResources(bytes);
  (void)gantry::oci::ParseMounts(bytes);
  (void)gantry::oci::ParseSignal(bytes);
  return 0;
}
