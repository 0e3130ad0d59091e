#include "services/image/plain_hosts.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"

namespace gantry::image {
namespace {

// "name:port" as name.
std::string HostName(const std::string& host) {
  if (absl::StartsWith(host, "[")) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.find(':'));
}

bool IsLoopback(const std::string& name) {
  if (name == "localhost" || name == "::1") return true;
  in_addr address = {};
  return ::inet_pton(AF_INET, name.c_str(), &address) == 1 && (ntohl(address.s_addr) >> 24) == 127;
}

// Whether the IP address `name` lies in "10.0.0.0/8" or "fd00::/8".
bool InNetwork(const std::string& name, const std::string& network) {
  const size_t slash = network.find('/');
  int bits = 0;
  if (slash == std::string::npos || !absl::SimpleAtoi(network.substr(slash + 1), &bits)) {
    return false;
  }
  for (int family : {AF_INET, AF_INET6}) {
    unsigned char address[16] = {};
    unsigned char base[16] = {};
    if (::inet_pton(family, name.c_str(), address) != 1 ||
        ::inet_pton(family, network.substr(0, slash).c_str(), base) != 1) {
      continue;
    }
    const int size = family == AF_INET ? 32 : 128;
    if (bits < 0 || bits > size) return false;
    for (int i = 0; i < bits; ++i) {
      const int mask = 0x80 >> (i % 8);
      if ((address[i / 8] & mask) != (base[i / 8] & mask)) return false;
    }
    return true;
  }
  return false;
}

}  // namespace

bool PlainHosts::Allows(const std::string& host) const {
  const std::string name = HostName(host);
  if (IsLoopback(name)) return true;
  return std::any_of(listed_.begin(), listed_.end(), [&](const std::string& entry) {
    return entry == host || entry == name || InNetwork(name, entry);
  });
}

}  // namespace gantry::image
