// Our table of the kernel's packet filter: address translation for containers and their published
// ports.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/netlink/address.h"
#include "lib/netlink/socket.h"
#include "services/engine/network/network.h"

namespace gantry::network {

// The table "ip gantry" (or "gantry_<bridge>" where the bridge is not called gantry0) holds
//   - two maps from (host address,) protocol and host port to container address and port;
//   publishing
//     a port is one element, and a packet costs two look-ups however many ports there are
//   - nat: destination of packets to this host by those maps, from outside (prerouting) and from
//   the
//     host itself (output, so that 127.0.0.1:8080 works); source of what leaves the subnet
//     (masquerade), of what comes from 127.0.0.0/8, and of what a container sends to a published
//     port of a neighbour (hairpin), for otherwise the answers would go past the translation
//   - filter: nothing reaches a container from outside but answers and published ports; nothing
//   from
//     the bridge reaches the host's 127.0.0.0/8
// Other tables are never touched. A drop in one of them still drops: nftables has no rule that
// overrides another table's, and we do not edit strangers' rules.
//
// What the table should hold is kept in memory too, so it can be built again when somebody flushed
// it: at the next change, when an event says so (HandleEvents), and at Rebuild. Thread-safe. The
// mutex is held over the kernel's answer on purpose: the order of changes in the kernel has to be
// the order in memory, and the answer takes a tenth of a millisecond.
class Firewall {
 public:
  // `bridge`: the interface's name.
  static absl::StatusOr<std::unique_ptr<Firewall>> Create(const std::string& bridge);

  struct Publication {
    netlink::Ipv4Address container;
    std::vector<Port> ports;
  };

  // Makes the table hold exactly these, in one step: established connections notice nothing.
  absl::Status Rebuild(const netlink::Ipv4Prefix& subnet,
                       const std::vector<Publication>& publications);

  // After an error the table is as before. UDP flows that began before their port was published are
  // forgotten, so that their next packet is translated; likewise those to a container whose ports
  // are taken back.
  absl::Status Publish(netlink::Ipv4Address container, const std::vector<Port>& ports);
  // After an error the ports may still lead to the container in the kernel; the next change mends
  // it.
  absl::Status Unpublish(netlink::Ipv4Address container, const std::vector<Port>& ports);

  absl::Status Remove();
  // Removes the table of a bridge that is not used any more.
  static absl::Status RemoveTableOf(const std::string& bridge);

  // Compares kernel and memory: one clause for each difference.
  absl::StatusOr<std::vector<std::string>> Differences();

  // Readable when somebody changed the packet filter; then call HandleEvents, which compares if it
  // was our table and rebuilds it if it differs. Returns true after a repair.
  int event_fd() const { return events_.fd().get(); }
  absl::StatusOr<bool> HandleEvents();

  const std::string& table() const { return table_; }

 private:
  // An element of a map: key and data as the kernel has them.
  using Elements = std::map<std::string, std::string>;
  struct Maps {
    Elements by_address;  // Host address, protocol, host port.
    Elements everywhere;  // Protocol, host port.
  };

  Firewall(std::string bridge, netlink::Socket changes, netlink::Socket events);
  absl::Status Apply(const Maps& wanted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Change(const Maps& add, const Maps& remove, const Maps& wanted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::vector<std::string>> Compare() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetUdpFlows(netlink::Ipv4Address container, const std::vector<Port>& ports)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<bool> ReadEvents();
  std::string Script(const Maps& maps) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Insert(Maps& maps, netlink::Ipv4Address container, const Port& port);

  const std::string bridge_;
  const std::string table_;
  netlink::Socket events_;   // Used by the one thread that calls HandleEvents.
  const uint32_t own_port_;  // Of changes_: its events are our own doing.

  absl::Mutex mutex_;
  netlink::Socket changes_ ABSL_GUARDED_BY(mutex_);
  netlink::Ipv4Prefix subnet_ ABSL_GUARDED_BY(mutex_);
  Maps maps_ ABSL_GUARDED_BY(mutex_);
  bool built_ ABSL_GUARDED_BY(mutex_) = false;
  bool dirty_ ABSL_GUARDED_BY(mutex_) =
      false;  // A change failed half way; rebuild at the next one.
};

}  // namespace gantry::network
