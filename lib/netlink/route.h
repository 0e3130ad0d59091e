// Interfaces, addresses and routes: what rtnetlink(7) is asked and told. The functions that change
// something append a request to a batch, so that one system call can carry several.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/netlink/address.h"
#include "lib/netlink/socket.h"
#include "lib/sys/unique_fd.h"

namespace gantry::netlink {

// A name of at most 15 bytes, without '/', ':', white space, not "." or "..". Errors:
// InvalidArgument.
absl::Status CheckInterfaceName(absl::string_view name);

struct Link {
  int index = 0;
  std::string name;
  std::string kind;  // "veth", "bridge"; empty for hardware.
  uint32_t group = 0;
  uint32_t mtu = 0;
  int master = 0;  // Index of the bridge it is a port of; 0: none.
  bool up = false;
};

// A pair of interfaces joined by a cable. Ours is a port of a bridge and up; the peer appears in
// another namespace under its final name, down, to be set up from inside. Ours has no IPv6 address,
// and sends a packet back to where it came from if need be (hairpin): a container that calls its
// own published port wants that where the kernel filters bridged packets (br_netfilter).
struct VethSpec {
  std::string name;
  uint32_t group = 0;    // Whose it is: an owner mark that is there from the first moment.
  int bridge_index = 0;  // 0: no port of any.
  uint32_t mtu = 0;      // 0: the kernel's default.
  std::string peer_name;
  MacAddress peer_mac{};
  const sys::UniqueFd* peer_namespace = nullptr;
};
void AddVeth(Batch& batch, const VethSpec& spec);

// A bridge without spanning tree whose address does not follow its ports. Down. EEXIST is an error.
struct BridgeSpec {
  std::string name;
  uint32_t group = 0;
  MacAddress mac{};
};
void AddBridge(Batch& batch, const BridgeSpec& spec);

void SetUp(Batch& batch, int index);
void SetUp(Batch& batch, absl::string_view name);
void SetMaster(Batch& batch, int index, int bridge_index);
void Rename(Batch& batch, int index, absl::string_view name);
void MoveToNamespace(Batch& batch, int index, const sys::UniqueFd& network_namespace);
void DeleteLink(Batch& batch, absl::string_view name);                // Fine when it is not there.
void SetGroup(Batch& batch, absl::string_view name, uint32_t group);  // Likewise.
// All interfaces of a group at once: the kernel's waits (tens of milliseconds) are then needed only
// once. Fine when there are none.
void DeleteGroup(Batch& batch, uint32_t group);
// The address with its subnet's length, and the broadcast address. Fine when it is there already.
void AddAddress(Batch& batch, int index, const Ipv4Prefix& address);
void AddDefaultRoute(Batch& batch, Ipv4Address gateway);

// Errors: NotFound.
absl::StatusOr<Link> FindLink(Socket& socket, absl::string_view name);
absl::StatusOr<std::vector<Link>> ListLinks(Socket& socket);

struct InterfaceAddress {
  int index = 0;
  Ipv4Prefix address;
};
absl::StatusOr<std::vector<InterfaceAddress>> ListAddresses(Socket& socket);

// Routes of the main table. The default route has a prefix of length 0.
struct Route {
  int index = 0;  // The interface it goes out by.
  Ipv4Prefix destination;
};
absl::StatusOr<std::vector<Route>> ListRoutes(Socket& socket);

}  // namespace gantry::netlink
