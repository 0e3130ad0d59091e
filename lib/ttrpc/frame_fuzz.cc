// Frames in pieces of any size: no crash, and the reader never holds more than it was given.
#include <string.h>

#include <algorithm>

#include "lib/ttrpc/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t step = size_t{data[0]} + 1;
  ++data;
  --size;
  gantry::ttrpc::FrameReader reader;
  gantry::ttrpc::FrameReader::Frame frame;
  while (size > 0) {
    const auto [space, room] = reader.Space();
    const size_t count = std::min({step, room, size});
    memcpy(space, data, count);
    reader.Commit(count);
    data += count;
    size -= count;
    while (reader.Next(&frame)) {
      (void)gantry::ttrpc::DecodeRequest(frame.body);
      (void)gantry::ttrpc::DecodeResponse(frame.body);
    }
  }
  return 0;
}
