// The kernel's memory of connections (conntrack), as far as address translation makes it our
// business.
//
// A connection is translated, or not, by its first packet. For TCP that is what one wants. A UDP
// flow has no end that anybody sees: a client that goes on sending from the same port keeps the old
// decision alive, so after a port was published, or given to another container, such flows have to
// be forgotten.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/netlink/address.h"
#include "lib/netlink/socket.h"

namespace gantry::netlink {

// One remembered UDP flow.
struct UdpFlow {
  Ipv4Address source;
  Ipv4Address destination;  // Whom the client means …
  uint16_t destination_port = 0;
  Ipv4Address answered_by;  // … and who answers: another one when it is translated.
  std::string original;  // The kernel's own description of the client's side, to name the flow by.
};

// Flows of IPv4 whose client means `destination_port`. Empty as well when the kernel cannot tell
// (built without ctnetlink). `netfilter` is a socket of NETLINK_NETFILTER.
absl::StatusOr<std::vector<UdpFlow>> ListUdpFlows(Socket& netfilter, uint16_t destination_port);

// Fine when it is gone already.
void ForgetFlow(Batch& batch, const UdpFlow& flow);

}  // namespace gantry::netlink
