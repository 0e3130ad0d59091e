// IPv4 addresses, prefixes and MAC addresses as values. IPv6 gets its own types beside these when a
// network needs it; nothing here pretends to be both.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::netlink {

// An address as a number in host order: 10.0.0.1 is 0x0a000001.
struct Ipv4Address {
  uint32_t value = 0;

  auto operator<=>(const Ipv4Address&) const = default;
  std::string ToString() const;
};

// A subnet or an address with its subnet's length. `address` may have bits below the prefix.
struct Ipv4Prefix {
  Ipv4Address address;
  int length = 32;  // 0…32

  bool operator==(const Ipv4Prefix&) const = default;
  std::string ToString() const;  // "172.30.0.0/16"
  uint32_t mask() const { return length == 0 ? 0 : ~uint32_t{0} << (32 - length); }
  Ipv4Address first() const { return {address.value & mask()}; }
  Ipv4Address last() const { return {address.value | ~mask()}; }
  bool Contains(Ipv4Address other) const { return (other.value & mask()) == first().value; }
  bool Overlaps(const Ipv4Prefix& other) const {
    return first() <= other.last() && other.first() <= last();
  }
};

using MacAddress = std::array<uint8_t, 6>;

// Four decimal numbers, no leading zeros, nothing else. Errors: InvalidArgument.
absl::StatusOr<Ipv4Address> ParseIpv4(absl::string_view text);
// "a.b.c.d/n". Errors: InvalidArgument.
absl::StatusOr<Ipv4Prefix> ParsePrefix(absl::string_view text);
// "02:42:ac:1e:00:02", not a multicast address. Errors: InvalidArgument.
absl::StatusOr<MacAddress> ParseMac(absl::string_view text);
std::string FormatMac(const MacAddress& mac);

// 02:42 and the four bytes of the address: locally administered, and the same again whenever the
// address is used again, so that nobody's neighbour table goes stale.
MacAddress MacFor(Ipv4Address address);

}  // namespace gantry::netlink
