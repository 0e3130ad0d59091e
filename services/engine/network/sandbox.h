// Sandboxes in the kernel: namespace files and the interface pairs that lead into them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/netlink/address.h"
#include "lib/netlink/route.h"

namespace gantry::network {

// One namespace, of a container or ready for one.
struct Sandbox {
  std::string endpoint_id;
  std::optional<netlink::Ipv4Address> ip;  // None: nothing but `lo`.
  netlink::MacAddress mac{};
};

// What a namespace on the bridge is joined to.
struct BridgeState {
  int index = 0;
  netlink::Ipv4Prefix subnet;
  netlink::Ipv4Address gateway;
  uint32_t mtu = 0;
};

// Makes, finds and removes sandboxes. Everything made carries the owner's mark from its first
// moment: files lie in the owner's directory, interfaces are of the owner's group (a number made
// from that directory) and are called "gt" and twelve digits of the endpoint's id. So whatever a
// killed process left is found again, and nothing else is. Thread-safe.
class SandboxStore {
 public:
  explicit SandboxStore(std::string directory);

  // Makes the namespace: `lo` up, no IPv6 on what comes later, the sysctls network.h names, and
  // with an address `eth0` on the bridge and the default route. After an error nothing is left.
  absl::Status Make(const Sandbox& sandbox, const BridgeState& bridge) const;

  // Removes all of it, interfaces first, so that the addresses are free whoever still holds the
  // namespaces. Fine when some are gone. Goes on after an error and returns the first.
  absl::Status Remove(const std::vector<std::string>& endpoint_ids) const;

  // What there is in the kernel and on disk, by the short names.
  struct Inventory {
    std::vector<std::string> files;      // In the directory.
    std::vector<netlink::Link> links;    // Of our group and naming.
    std::vector<netlink::Link> bridges;  // Of our group.
  };
  absl::StatusOr<Inventory> List() const;

  // Removes a leftover of which only the short name is known.
  absl::Status RemoveFile(const std::string& name) const;
  absl::Status RemoveLink(const std::string& name) const;

  // Twelve digits of the id: the name of the file, and of the interface after "gt".
  static std::string ShortName(const std::string& endpoint_id) { return endpoint_id.substr(0, 12); }
  static std::string LinkName(const std::string& endpoint_id);
  std::string Path(const std::string& endpoint_id) const;

  const std::string& directory() const { return directory_; }
  uint32_t group() const { return group_; }

 private:
  absl::Status FillNamespace(const Sandbox& sandbox, const BridgeState& bridge,
                             netlink::Socket& host, const sys::UniqueFd& made) const;
  // Where interfaces wait to be deleted together. Ours as well.
  uint32_t GroupLeaving() const { return group_ ^ 0x40000000u; }

  const std::string directory_;
  const uint32_t group_;
};

}  // namespace gantry::network
