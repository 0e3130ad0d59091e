#include "lib/netlink/address.h"

#include <arpa/inet.h>

#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::netlink {
namespace {

absl::Status NotAnAddress(absl::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", EscapeForTerminal(text), "' is not an IPv4 address; write it as 10.0.0.1"));
}

}  // namespace

std::string Ipv4Address::ToString() const {
  return absl::StrCat(value >> 24, ".", (value >> 16) & 0xff, ".", (value >> 8) & 0xff, ".",
                      value & 0xff);
}

std::string Ipv4Prefix::ToString() const { return absl::StrCat(address.ToString(), "/", length); }

absl::StatusOr<Ipv4Address> ParseIpv4(absl::string_view text) {
  // inet_pton and not inet_aton: "010.1" and "1" are not addresses to us.
  in_addr parsed;
  if (text.size() > 15 || ::inet_pton(AF_INET, std::string(text).c_str(), &parsed) != 1) {
    return NotAnAddress(text);
  }
  return Ipv4Address{ntohl(parsed.s_addr)};
}

absl::StatusOr<Ipv4Prefix> ParsePrefix(absl::string_view text) {
  std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits('/', 1));
  int length = 0;
  if (parts.second.empty() || parts.second.size() > 2 || !absl::ascii_isdigit(parts.second[0]) ||
      !absl::SimpleAtoi(parts.second, &length) || length > 32) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", EscapeForTerminal(text), "' is not an IPv4 subnet; write it as 172.30.0.0/16"));
  }
  ASSIGN_OR_RETURN(Ipv4Address address, ParseIpv4(parts.first));
  return Ipv4Prefix{address, length};
}

absl::StatusOr<MacAddress> ParseMac(absl::string_view text) {
  const absl::Status wrong =
      absl::InvalidArgumentError(absl::StrCat("'", EscapeForTerminal(text),
                                              "' is not a MAC address of one station; write it as "
                                              "02:42:ac:1e:00:02"));
  MacAddress mac{};
  if (text.size() != 17) return wrong;
  for (size_t i = 0; i < mac.size(); ++i) {
    const char high = text[3 * i];
    const char low = text[3 * i + 1];
    if (!absl::ascii_isxdigit(high) || !absl::ascii_isxdigit(low)) return wrong;
    if (i + 1 < mac.size() && text[3 * i + 2] != ':') return wrong;
    mac[i] = static_cast<uint8_t>(absl::HexStringToBytes(text.substr(3 * i, 2))[0]);
  }
  if ((mac[0] & 1) != 0 || mac == MacAddress{}) return wrong;
  return mac;
}

std::string FormatMac(const MacAddress& mac) {
  return absl::StrFormat("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                         mac[5]);
}

MacAddress MacFor(Ipv4Address address) {
  return {0x02,
          0x42,
          static_cast<uint8_t>(address.value >> 24),
          static_cast<uint8_t>(address.value >> 16),
          static_cast<uint8_t>(address.value >> 8),
          static_cast<uint8_t>(address.value)};
}

}  // namespace gantry::netlink
