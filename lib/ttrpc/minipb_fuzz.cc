#include <cstdint>
#include <cstdlib>

#include "lib/ttrpc/minipb.h"

namespace {

void Walk(absl::string_view bytes, int depth) {
  gantry::pb::Reader reader(bytes);
  while (reader.Next()) {
    // A field lies inside the message it came from.
    if (!reader.bytes().empty() && (reader.bytes().data() < bytes.data() ||
                                    reader.bytes().end() > bytes.data() + bytes.size())) {
      abort();
    }
    if (depth > 0) Walk(reader.bytes(), depth - 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Walk(absl::string_view(reinterpret_cast<const char*>(data), size), 4);
  return 0;
}
