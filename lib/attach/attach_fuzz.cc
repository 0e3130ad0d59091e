#include <algorithm>
#include <cstdint>

#include "lib/attach/protocol.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t step = size_t{data[0]} + 1;
  absl::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  gantry::attach::FrameParser parser;
  while (!rest.empty()) {
    parser.Append(rest.substr(0, step));
    rest.remove_prefix(std::min(step, rest.size()));
    gantry::attach::Frame frame;
    for (;;) {
      const absl::StatusOr<bool> got = parser.Next(&frame);
      if (!got.ok()) return 0;
      if (!*got) break;
      (void)gantry::attach::ParseHello(frame.payload);
      (void)gantry::attach::ParseAccepted(frame.payload);
      (void)gantry::attach::ParseError(frame.payload);
      (void)gantry::attach::ParseResize(frame.payload);
      (void)gantry::attach::ParseLost(frame.payload);
      (void)gantry::attach::ParseExit(frame.payload);
    }
  }
  return 0;
}
