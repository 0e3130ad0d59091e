#include "services/engine/network/network.h"

#include "absl/strings/str_cat.h"

namespace gantry::network {

absl::StatusOr<Mode> ParseMode(absl::string_view text) {
  if (text.empty() || text == "bridge" || text == "default") return Mode::kBridge;
  if (text == "none") return Mode::kNone;
  if (text == "host") return Mode::kHost;
  return absl::InvalidArgumentError(
      absl::StrCat("network '", text, "' does not exist; use bridge, none, host or container:ID"));
}

absl::string_view ModeName(Mode mode) {
  switch (mode) {
    case Mode::kBridge:
      return "bridge";
    case Mode::kNone:
      return "none";
    case Mode::kHost:
      return "host";
  }
  return "bridge";
}

absl::StatusOr<Protocol> ParseProtocol(absl::string_view text) {
  if (text.empty() || text == "tcp") return Protocol::kTcp;
  if (text == "udp") return Protocol::kUdp;
  return absl::InvalidArgumentError(
      absl::StrCat("protocol '", text, "' cannot be published; use tcp or udp"));
}

absl::string_view ProtocolName(Protocol protocol) {
  return protocol == Protocol::kTcp ? "tcp" : "udp";
}

}  // namespace gantry::network
