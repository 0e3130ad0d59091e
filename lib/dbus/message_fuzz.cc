// Any bytes from a bus: refused, or a message whose body reads back the same after it was written.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "lib/dbus/message.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)gantry::dbus::MessageLength(bytes);
  auto message = gantry::dbus::ReadMessage(bytes);
  if (!message.ok()) return 0;
  auto body = message->Body();
  if (!body.ok()) return 0;
  auto again = gantry::dbus::ReadMessage(gantry::dbus::WriteMessage(*message, *body));
  if (!again.ok() || again->member != message->member) std::abort();
  auto second = again->Body();
  if (!second.ok() || *second != *body) std::abort();
  return 0;
}
