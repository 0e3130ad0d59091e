// Any bytes as an archive; nothing is written to the disk.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ctl/tar.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gantry::ctl::TarReader reader([&](char* buffer, size_t wanted) -> absl::StatusOr<size_t> {
    const size_t count = std::min(wanted, size);
    std::copy_n(data, count, buffer);
    data += count;
    size -= count;
    return count;
  });
  while (true) {
    const auto entry = reader.Next();
    if (!entry.ok() || !entry->has_value()) break;
    const auto bytes = reader.ReadData();
    if (!bytes.ok()) break;
  }
  return 0;
}
