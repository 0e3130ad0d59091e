// Which ports of the host belong to which container.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/netlink/address.h"
#include "lib/sys/unique_fd.h"
#include "services/engine/network/network.h"

namespace gantry::network {

// Chooses and holds host ports. A port is held twice over: in a table, so that a conflict can name
// the container, and by a socket bound to it (not listening), so that a program of the host which
// is there already is noticed, and one that comes later gets EADDRINUSE instead of never seeing a
// packet. Thread-safe.
class HostPorts {
 public:
  // Takes the port from the host. Errors: AlreadyExists — somebody has it (who, if known);
  // InvalidArgument — `ip` is not an address of this host.
  using Bind =
      std::function<absl::StatusOr<sys::UniqueFd>(Protocol, netlink::Ipv4Address, uint16_t)>;

  explicit HostPorts(Bind bind = BindHostPort);

  // Reserves all of `requests` for `holder`, or none. Errors: AlreadyExists — a port is taken
  // (holder named); InvalidArgument; ResourceExhausted — no free port is left to choose from.
  absl::StatusOr<std::vector<Port>> Reserve(const std::string& holder,
                                            const std::vector<PortRequest>& requests);

  // Takes over ports that lead to a running container since before this process. A port whose
  // socket cannot be bound stays in the table all the same: the packets go to the container,
  // whoever listens. Errors: AlreadyExists — another container's.
  absl::Status Adopt(const std::string& holder, const std::vector<Port>& ports);

  // Gives back whatever `holder` has.
  void Release(const std::string& holder);

  // bind(2) as described above. The error names the process that listens there.
  static absl::StatusOr<sys::UniqueFd> BindHostPort(Protocol protocol, netlink::Ipv4Address ip,
                                                    uint16_t port);

 private:
  struct Claim {
    netlink::Ipv4Address ip;
    std::string holder;
    sys::UniqueFd socket;  // None while it is being bound, or where that was not possible.
  };
  using Slot = std::pair<Protocol, uint16_t>;

  absl::StatusOr<Port> ReserveOne(const std::string& holder, const PortRequest& request);
  absl::Status TryPort(const std::string& holder, const PortRequest& request,
                       netlink::Ipv4Address ip, uint16_t port);
  absl::Status AddClaim(const std::string& holder, Slot slot, netlink::Ipv4Address ip)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drop(const std::string& holder, Slot slot, netlink::Ipv4Address ip);

  const Bind bind_;
  absl::Mutex mutex_;
  std::map<Slot, std::vector<Claim>> claims_ ABSL_GUARDED_BY(mutex_);
  uint16_t next_free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::network
