// Filters come from any client: no bytes may crash the parser, and what parses can be matched.
#include <cstddef>
#include <cstdint>
#include <string>

#include "lib/filter/filter.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto filter =
      gantry::filter::Filter::Parse({std::string(reinterpret_cast<const char*>(data), size)});
  if (filter.ok()) {
    filter->Matches([](const std::vector<std::string>& path) -> std::optional<std::string> {
      return gantry::filter::JoinPath(path, 0);
    });
  }
  return 0;
}
