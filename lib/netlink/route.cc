#include "lib/netlink/route.h"

#include <arpa/inet.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::netlink {
namespace {

template <typename Struct>
bool ReadHeader(absl::string_view& body, Struct* header) {
  if (body.size() < NLMSG_ALIGN(sizeof(Struct))) return false;
  std::memcpy(header, body.data(), sizeof(Struct));
  body.remove_prefix(NLMSG_ALIGN(sizeof(Struct)));
  return true;
}

absl::string_view AsBytes(const MacAddress& mac) {
  return absl::string_view(reinterpret_cast<const char*>(mac.data()), mac.size());
}

void PutAddress(Batch& batch, uint16_t attribute, Ipv4Address address) {
  batch.PutU32(attribute, htonl(address.value));
}

Ipv4Address GetAddress(const Attributes& attributes, uint16_t attribute) {
  return {ntohl(attributes.GetU32(attribute))};
}

ifinfomsg LinkHeader(int index, unsigned flags) {
  ifinfomsg header{};
  header.ifi_family = AF_UNSPEC;
  header.ifi_index = index;
  header.ifi_flags = flags;
  header.ifi_change = flags;
  return header;
}

// No link-local IPv6 address on this interface: nobody asked for one, and its duplicate detection
// would send packets. The kernel takes this only for an interface that exists, so it is a request
// of its own, before the interface is up.
void TurnOffIpv6(Batch& batch, absl::string_view name) {
  batch.Begin(RTM_NEWLINK, 0, absl::StrCat("turn off IPv6 on the interface '", name, "'"),
              EAFNOSUPPORT);  // A kernel without IPv6.
  batch.PutStruct(LinkHeader(0, 0));
  batch.PutString(IFLA_IFNAME, name);
  const size_t families = batch.OpenNest(IFLA_AF_SPEC);
  const size_t inet6 = batch.OpenNest(AF_INET6);
  batch.PutBytes(IFLA_INET6_ADDR_GEN_MODE, absl::string_view("\1", 1));  // IN6_ADDR_GEN_MODE_NONE
  batch.CloseNest(inet6);
  batch.CloseNest(families);
}

Link ParseLink(const ifinfomsg& header, const Attributes& attributes) {
  Link link;
  link.index = header.ifi_index;
  link.up = (header.ifi_flags & IFF_UP) != 0;
  link.name = attributes.GetString(IFLA_IFNAME);
  link.group = attributes.GetU32(IFLA_GROUP);
  link.mtu = attributes.GetU32(IFLA_MTU);
  link.master = static_cast<int>(attributes.GetU32(IFLA_MASTER));
  link.kind = Attributes(attributes.Get(IFLA_LINKINFO)).GetString(IFLA_INFO_KIND);
  return link;
}

absl::StatusOr<std::vector<Link>> QueryLinks(Socket& socket, Batch& batch) {
  std::vector<Link> links;
  RETURN_IF_ERROR(socket.Query(
      batch,
      [&](uint16_t type, absl::string_view body) {
        ifinfomsg header;
        if (type != RTM_NEWLINK || !ReadHeader(body, &header)) return;
        links.push_back(ParseLink(header, Attributes(body)));
      },
      [&] { links.clear(); }));
  return links;
}

}  // namespace

absl::Status CheckInterfaceName(absl::string_view name) {
  bool valid = !name.empty() && name.size() < IFNAMSIZ && name != "." && name != "..";
  for (char c : name) {
    valid = valid && absl::ascii_isgraph(static_cast<unsigned char>(c)) && c != '/' && c != ':' &&
            c != '"' && c != '%';
  }
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("interface name '", EscapeForTerminal(name),
                   "' must be 1 to 15 visible characters without / : % and quotes"));
}

void AddVeth(Batch& batch, const VethSpec& spec) {
  batch.Begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL,
              absl::StrCat("make the interface pair '", spec.name, "'"));
  batch.PutStruct(LinkHeader(0, 0));
  batch.PutString(IFLA_IFNAME, spec.name);
  batch.PutU32(IFLA_GROUP, spec.group);
  batch.PutU32(IFLA_MASTER, spec.bridge_index);
  if (spec.mtu != 0) batch.PutU32(IFLA_MTU, spec.mtu);
  const size_t info = batch.OpenNest(IFLA_LINKINFO);
  batch.PutString(IFLA_INFO_KIND, "veth");
  const size_t data = batch.OpenNest(IFLA_INFO_DATA);
  const size_t peer = batch.OpenNest(VETH_INFO_PEER);
  batch.PutStruct(LinkHeader(0, 0));  // It cannot be up before it is joined.
  batch.PutString(IFLA_IFNAME, spec.peer_name);
  batch.PutBytes(IFLA_ADDRESS, AsBytes(spec.peer_mac));
  if (spec.mtu != 0) batch.PutU32(IFLA_MTU, spec.mtu);
  batch.PutU32(IFLA_NET_NS_FD, spec.peer_namespace->get());
  batch.CloseNest(peer);
  batch.CloseNest(data);
  batch.CloseNest(info);
  TurnOffIpv6(batch, spec.name);
  SetUp(batch, spec.name);
  if (spec.bridge_index == 0) return;
  const size_t port = batch.OpenNest(IFLA_LINKINFO);
  batch.PutString(IFLA_INFO_SLAVE_KIND, "bridge");
  const size_t port_data = batch.OpenNest(IFLA_INFO_SLAVE_DATA);
  batch.PutBytes(IFLA_BRPORT_MODE, absl::string_view("\1", 1));
  batch.CloseNest(port_data);
  batch.CloseNest(port);
}

void AddBridge(Batch& batch, const BridgeSpec& spec) {
  batch.Begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL,
              absl::StrCat("make the bridge '", spec.name, "'"));
  batch.PutStruct(LinkHeader(0, 0));
  batch.PutString(IFLA_IFNAME, spec.name);
  batch.PutU32(IFLA_GROUP, spec.group);
  batch.PutBytes(IFLA_ADDRESS, AsBytes(spec.mac));
  const size_t info = batch.OpenNest(IFLA_LINKINFO);
  batch.PutString(IFLA_INFO_KIND, "bridge");
  const size_t data = batch.OpenNest(IFLA_INFO_DATA);
  batch.PutU32(IFLA_BR_FORWARD_DELAY, 0);  // Ports carry traffic the moment they are added.
  batch.PutU32(IFLA_BR_STP_STATE, 0);
  batch.CloseNest(data);
  batch.CloseNest(info);
  TurnOffIpv6(batch, spec.name);
}

void SetUp(Batch& batch, absl::string_view name) {
  batch.Begin(RTM_NEWLINK, 0, absl::StrCat("set interface '", name, "' up"));
  batch.PutStruct(LinkHeader(0, IFF_UP));
  batch.PutString(IFLA_IFNAME, name);
}

void SetUp(Batch& batch, int index) {
  batch.Begin(RTM_NEWLINK, 0, absl::StrCat("set interface ", index, " up"));
  batch.PutStruct(LinkHeader(index, IFF_UP));
}

void SetMaster(Batch& batch, int index, int bridge_index) {
  batch.Begin(RTM_NEWLINK, 0, absl::StrCat("make interface ", index, " a port of ", bridge_index));
  batch.PutStruct(LinkHeader(index, 0));
  batch.PutU32(IFLA_MASTER, bridge_index);
}

void Rename(Batch& batch, int index, absl::string_view name) {
  batch.Begin(RTM_NEWLINK, 0, absl::StrCat("rename interface ", index, " to '", name, "'"));
  batch.PutStruct(LinkHeader(index, 0));
  batch.PutString(IFLA_IFNAME, name);
}

void MoveToNamespace(Batch& batch, int index, const sys::UniqueFd& network_namespace) {
  batch.Begin(RTM_NEWLINK, 0, absl::StrCat("move interface ", index, " to another namespace"));
  batch.PutStruct(LinkHeader(index, 0));
  batch.PutU32(IFLA_NET_NS_FD, network_namespace.get());
}

void DeleteLink(Batch& batch, absl::string_view name) {
  batch.Begin(RTM_DELLINK, 0, absl::StrCat("delete the interface '", name, "'"), ENODEV);
  batch.PutStruct(LinkHeader(0, 0));
  batch.PutString(IFLA_IFNAME, name);
}

void SetGroup(Batch& batch, absl::string_view name, uint32_t group) {
  batch.Begin(RTM_NEWLINK, 0, absl::StrCat("move the interface '", name, "' to a group"), ENODEV);
  batch.PutStruct(LinkHeader(0, 0));
  batch.PutString(IFLA_IFNAME, name);
  batch.PutU32(IFLA_GROUP, group);
}

void DeleteGroup(Batch& batch, uint32_t group) {
  batch.Begin(RTM_DELLINK, 0, absl::StrCat("delete the interfaces of group ", group), ENODEV);
  batch.PutStruct(LinkHeader(0, 0));
  batch.PutU32(IFLA_GROUP, group);
}

void AddAddress(Batch& batch, int index, const Ipv4Prefix& address) {
  batch.Begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL,
              absl::StrCat("give interface ", index, " the address '", address.ToString(), "'"),
              EEXIST);
  ifaddrmsg header{};
  header.ifa_family = AF_INET;
  header.ifa_prefixlen = address.length;
  header.ifa_index = index;
  batch.PutStruct(header);
  PutAddress(batch, IFA_LOCAL, address.address);
  PutAddress(batch, IFA_ADDRESS, address.address);
  PutAddress(batch, IFA_BROADCAST, address.last());
}

void AddDefaultRoute(Batch& batch, Ipv4Address gateway) {
  batch.Begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL,
              absl::StrCat("make '", gateway.ToString(), "' the default gateway"));
  rtmsg header{};
  header.rtm_family = AF_INET;
  header.rtm_table = RT_TABLE_MAIN;
  header.rtm_protocol = RTPROT_BOOT;
  header.rtm_scope = RT_SCOPE_UNIVERSE;
  header.rtm_type = RTN_UNICAST;
  batch.PutStruct(header);
  PutAddress(batch, RTA_GATEWAY, gateway);
}

absl::StatusOr<Link> FindLink(Socket& socket, absl::string_view name) {
  Batch batch;
  batch.Begin(RTM_GETLINK, 0, absl::StrCat("find the interface '", name, "'"));
  batch.PutStruct(LinkHeader(0, 0));
  batch.PutString(IFLA_IFNAME, name);
  absl::StatusOr<std::vector<Link>> found = QueryLinks(socket, batch);
  if (found.status().code() == absl::StatusCode::kNotFound || (found.ok() && found->empty())) {
    return absl::NotFoundError(absl::StrCat("no interface '", name, "'"));
  }
  if (!found.ok()) return found.status();
  return found->front();
}

absl::StatusOr<std::vector<Link>> ListLinks(Socket& socket) {
  Batch batch;
  batch.Begin(RTM_GETLINK, NLM_F_DUMP, "list interfaces");
  batch.PutStruct(LinkHeader(0, 0));
  // Counters per interface would make a long list several times longer.
  batch.PutU32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  return QueryLinks(socket, batch);
}

absl::StatusOr<std::vector<InterfaceAddress>> ListAddresses(Socket& socket) {
  Batch batch;
  batch.Begin(RTM_GETADDR, NLM_F_DUMP, "list addresses");
  ifaddrmsg request{};
  request.ifa_family = AF_INET;
  batch.PutStruct(request);
  std::vector<InterfaceAddress> addresses;
  RETURN_IF_ERROR(socket.Query(
      batch,
      [&](uint16_t type, absl::string_view body) {
        ifaddrmsg header;
        if (type != RTM_NEWADDR || !ReadHeader(body, &header)) return;
        addresses.push_back({static_cast<int>(header.ifa_index),
                             {GetAddress(Attributes(body), IFA_LOCAL), header.ifa_prefixlen}});
      },
      [&] { addresses.clear(); }));
  return addresses;
}

absl::StatusOr<std::vector<Route>> ListRoutes(Socket& socket) {
  Batch batch;
  batch.Begin(RTM_GETROUTE, NLM_F_DUMP, "list routes");
  rtmsg request{};
  request.rtm_family = AF_INET;
  batch.PutStruct(request);
  std::vector<Route> routes;
  RETURN_IF_ERROR(socket.Query(
      batch,
      [&](uint16_t type, absl::string_view body) {
        rtmsg header;
        if (type != RTM_NEWROUTE || !ReadHeader(body, &header)) return;
        // Local and broadcast addresses have a table of their own, which is no business of ours.
        if (header.rtm_table != RT_TABLE_MAIN) return;
        const Attributes attributes(body);
        routes.push_back({static_cast<int>(attributes.GetU32(RTA_OIF)),
                          {GetAddress(attributes, RTA_DST), header.rtm_dst_len}});
      },
      [&] { routes.clear(); }));
  return routes;
}

}  // namespace gantry::netlink
