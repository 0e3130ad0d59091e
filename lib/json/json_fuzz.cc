// Any bytes: refused, or read into something that its own dump reads back as the same (fractions,
// whose last digit may differ, excepted).
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "lib/json/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto document = gantry::json::Document::Parse(
      absl::string_view(reinterpret_cast<const char*>(data), size), 1 << 16);
  if (!document.ok()) return 0;
  const std::string dump = document->root().Dump();
  auto again = gantry::json::Document::Parse(dump);
  const bool whole = dump.find_first_of(".eE") == std::string::npos;
  if (!again.ok() || (whole && again->root().Dump() != dump)) std::abort();
  return 0;
}
