#include "runtime/net_devices.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>

#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/netlink/route.h"
#include "lib/netlink/socket.h"
#include "lib/sys/errno.h"

namespace gantry::runtime {
namespace {

// An address as rtnetlink told it, ready to be told back.
struct Address {
  uint8_t family = 0, prefix = 0;
  std::string local, address;
};

absl::StatusOr<std::vector<Address>> PermanentAddresses(netlink::Socket& socket, int index) {
  std::vector<Address> addresses;
  netlink::Batch batch;
  batch.Begin(RTM_GETADDR, NLM_F_DUMP, "list addresses");
  batch.PutStruct(ifaddrmsg{});
  RETURN_IF_ERROR(socket.Query(
      batch,
      [&](uint16_t type, absl::string_view body) {
        ifaddrmsg header;
        if (type != RTM_NEWADDR || body.size() < sizeof header) return;
        memcpy(&header, body.data(), sizeof header);
        const netlink::Attributes attributes(body.substr(NLMSG_ALIGN(sizeof header)));
        const uint32_t flags =
            attributes.Has(IFA_FLAGS) ? attributes.GetU32(IFA_FLAGS) : header.ifa_flags;
        if (header.ifa_index != static_cast<unsigned>(index) ||
            header.ifa_scope != RT_SCOPE_UNIVERSE || (flags & IFA_F_PERMANENT) == 0) {
          return;
        }
        addresses.push_back({header.ifa_family, header.ifa_prefixlen,
                             std::string(attributes.Get(IFA_LOCAL)),
                             std::string(attributes.Get(IFA_ADDRESS))});
      },
      [&] { addresses.clear(); }));
  return addresses;
}

absl::Status SetUpInside(netlink::Socket& socket, int index,
                         const std::vector<Address>& addresses) {
  netlink::Batch batch;
  for (const Address& one : addresses) {
    batch.Begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, "give the moved interface its address",
                EEXIST);
    ifaddrmsg header = {};
    header.ifa_family = one.family;
    header.ifa_prefixlen = one.prefix;
    header.ifa_index = static_cast<unsigned>(index);
    batch.PutStruct(header);
    if (!one.local.empty()) batch.PutBytes(IFA_LOCAL, one.local);
    if (!one.address.empty()) batch.PutBytes(IFA_ADDRESS, one.address);
  }
  netlink::SetUp(batch, index);
  return socket.Execute(batch);
}

// A socket of the other namespace; this process is back in its own afterwards.
absl::StatusOr<netlink::Socket> OpenInside(const sys::UniqueFd& network_namespace) {
  sys::UniqueFd own(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!own.ok() || ::setns(network_namespace.get(), CLONE_NEWNET) != 0) {
    return sys::ErrnoError(errno, "enter the container's network namespace");
  }
  absl::StatusOr<netlink::Socket> socket = netlink::Socket::Open(NETLINK_ROUTE);
  if (::setns(own.get(), CLONE_NEWNET) != 0) {
    return sys::ErrnoError(errno, "return from the container's network namespace");
  }
  return socket;
}

absl::Status MoveOne(netlink::Socket& outside, netlink::Socket& inside, const std::string& name,
                     const std::string& renamed, const sys::UniqueFd& network_namespace) {
  ASSIGN_OR_RETURN(netlink::Link link, netlink::FindLink(outside, name));
  ASSIGN_OR_RETURN(std::vector<Address> addresses, PermanentAddresses(outside, link.index));
  netlink::Batch batch;
  batch.Begin(RTM_SETLINK, 0, absl::StrCat("move '", name, "' into the container"));
  ifinfomsg header = {};
  header.ifi_index = link.index;
  batch.PutStruct(header);
  batch.PutU32(IFLA_NET_NS_FD, static_cast<uint32_t>(network_namespace.get()));
  batch.PutString(IFLA_IFNAME, renamed.empty() ? name : renamed);
  // The same number inside, if it is free there, would be luck: the name tells which it is.
  ASSIGN_OR_RETURN(std::vector<netlink::Link> before, netlink::ListLinks(inside));
  RETURN_IF_ERROR(outside.Execute(batch));
  ASSIGN_OR_RETURN(std::vector<netlink::Link> after, netlink::ListLinks(inside));
  for (const netlink::Link& candidate : after) {
    bool known = false;
    for (const netlink::Link& old : before) known = known || old.index == candidate.index;
    if (!known) return SetUpInside(inside, candidate.index, addresses);
  }
  return absl::NotFoundError("the interface did not arrive in the container");
}

}  // namespace

absl::Status MoveNetDevices(const std::map<std::string, std::string>& devices,
                            const sys::UniqueFd& network_namespace) {
  ASSIGN_OR_RETURN(netlink::Socket outside, netlink::Socket::Open(NETLINK_ROUTE));
  ASSIGN_OR_RETURN(netlink::Socket inside, OpenInside(network_namespace));
  for (const auto& [name, renamed] : devices) {
    RETURN_IF_ERROR(Annotate(MoveOne(outside, inside, name, renamed, network_namespace),
                             absl::StrCat("linux.netDevices.", EscapeForTerminal(name))));
  }
  return absl::OkStatus();
}

}  // namespace gantry::runtime
