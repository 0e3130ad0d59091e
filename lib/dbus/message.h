// Messages of the D-Bus protocol, version 1: a header of typed fields and a body of values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/dbus/value.h"

namespace gantry::dbus {

// Far above what systemd ever answers us; the protocol's own limit is 128 MiB.
inline constexpr size_t kMaxMessageBytes = 1 << 20;
// What is needed to know how long a message is.
inline constexpr size_t kFixedHeaderBytes = 16;

enum class MessageType : uint8_t { kInvalid = 0, kCall = 1, kReply = 2, kError = 3, kSignal = 4 };

struct Message {
  MessageType type = MessageType::kInvalid;
  uint32_t serial = 0;
  uint32_t reply_serial = 0;  // Of kReply and kError: the call's serial.
  std::string path, interface, member, error_name, destination, sender;
  std::string signature;  // Of the body.
  std::string body;       // Not yet read: most signals are thrown away.

  absl::StatusOr<std::vector<Value>> Body() const { return ReadAll(body, signature); }
};

// The bytes of a message; `body` gives its signature and body.
std::string WriteMessage(const Message& message, const std::vector<Value>& body);

// Bytes of the whole message, from its first kFixedHeaderBytes. Errors: InvalidArgument — not a
// message of version 1 in this machine's byte order; ResourceExhausted — over kMaxMessageBytes.
absl::StatusOr<size_t> MessageLength(absl::string_view fixed_header);

// Reads one whole message. Errors: InvalidArgument.
absl::StatusOr<Message> ReadMessage(absl::string_view bytes);

}  // namespace gantry::dbus
