// Any text of an annotation: refused, or a value that the wire carries.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "lib/dbus/variant_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  auto value = gantry::dbus::ParseVariantText(text);
  if (!value.ok()) return 0;
  std::string wire;
  gantry::dbus::Append(*value, wire);
  auto read = gantry::dbus::ReadAll(wire, value->signature);
  if (!read.ok() || read->size() != 1 || (*read)[0] != *value) std::abort();
  return 0;
}
