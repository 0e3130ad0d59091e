// Any bytes as header blocks: the first byte says where the first block ends.

#include <cstddef>
#include <cstdint>

#include "ctl/wire/hpack.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)gantry::wire::DecodeHuffman(bytes);
  if (bytes.empty()) return 0;
  gantry::wire::HeaderDecoder decoder;
  const size_t first = static_cast<uint8_t>(bytes[0]);
  bytes.remove_prefix(1);
  if (decoder.Decode(bytes.substr(0, first)).ok() && first < bytes.size()) {
    (void)decoder.Decode(bytes.substr(first));
  }
  return 0;
}
