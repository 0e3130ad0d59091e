#include "lib/netlink/conntrack.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace gantry::netlink {
namespace {

// Which parts of a tuple a dump's filter looks at (the kernel's CTA_FILTER_F_*, not in its
// headers).
constexpr uint32_t kFilterProtocol = 1u << 3;
constexpr uint32_t kFilterDestinationPort = 1u << 5;

constexpr uint16_t Message(int message) {
  return static_cast<uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | message);
}

nfgenmsg Header() {
  nfgenmsg header{};
  header.nfgen_family = NFPROTO_IPV4;
  header.version = NFNETLINK_V0;
  return header;
}

uint16_t Port(const Attributes& attributes, uint16_t attribute) {
  uint16_t wire = 0;
  const absl::string_view bytes = attributes.Get(attribute);
  if (bytes.size() >= sizeof(wire)) std::memcpy(&wire, bytes.data(), sizeof(wire));
  return ntohs(wire);
}

bool ParseFlow(absl::string_view body, UdpFlow* flow) {
  const Attributes entry(body.substr(sizeof(nfgenmsg)));
  const Attributes original(entry.Get(CTA_TUPLE_ORIG));
  const Attributes addresses(original.Get(CTA_TUPLE_IP));
  const Attributes ports(original.Get(CTA_TUPLE_PROTO));
  const Attributes answer(Attributes(entry.Get(CTA_TUPLE_REPLY)).Get(CTA_TUPLE_IP));
  const absl::string_view protocol = ports.Get(CTA_PROTO_NUM);
  if (protocol.empty() || static_cast<uint8_t>(protocol[0]) != IPPROTO_UDP) return false;
  flow->source = {ntohl(addresses.GetU32(CTA_IP_V4_SRC))};
  flow->destination = {ntohl(addresses.GetU32(CTA_IP_V4_DST))};
  flow->destination_port = Port(ports, CTA_PROTO_DST_PORT);
  flow->answered_by = {ntohl(answer.GetU32(CTA_IP_V4_SRC))};
  flow->original = std::string(entry.Get(CTA_TUPLE_ORIG));
  return true;
}

}  // namespace

absl::StatusOr<std::vector<UdpFlow>> ListUdpFlows(Socket& netfilter, uint16_t destination_port) {
  Batch batch;
  batch.Begin(Message(IPCTNL_MSG_CT_GET), NLM_F_DUMP,
              absl::StrCat("list UDP flows to port ", destination_port));
  batch.PutStruct(Header());
  const size_t tuple = batch.OpenNest(CTA_TUPLE_ORIG);
  const size_t protocol = batch.OpenNest(CTA_TUPLE_PROTO);
  const char udp = IPPROTO_UDP;
  batch.PutBytes(CTA_PROTO_NUM, absl::string_view(&udp, 1));
  const uint16_t port = htons(destination_port);
  batch.PutBytes(CTA_PROTO_DST_PORT,
                 absl::string_view(reinterpret_cast<const char*>(&port), sizeof(port)));
  batch.CloseNest(protocol);
  batch.CloseNest(tuple);
  // Busy hosts remember a hundred thousand connections: the kernel picks out ours.
  const size_t filter = batch.OpenNest(CTA_FILTER);
  batch.PutU32(CTA_FILTER_ORIG_FLAGS, kFilterProtocol | kFilterDestinationPort);
  batch.PutU32(CTA_FILTER_REPLY_FLAGS, 0);
  batch.CloseNest(filter);

  std::vector<UdpFlow> flows;
  absl::Status listed = netfilter.Query(
      batch,
      [&](uint16_t type, absl::string_view body) {
        UdpFlow flow;
        if (type != Message(IPCTNL_MSG_CT_NEW) || body.size() < sizeof(nfgenmsg)) return;
        if (!ParseFlow(body, &flow) || flow.destination_port != destination_port) return;
        flows.push_back(std::move(flow));
      },
      [&] { flows.clear(); });
  const bool unknown = listed.code() == absl::StatusCode::kInvalidArgument ||
                       listed.code() == absl::StatusCode::kUnimplemented;
  if (!listed.ok() && !unknown) return listed;
  return flows;
}

void ForgetFlow(Batch& batch, const UdpFlow& flow) {
  batch.Begin(Message(IPCTNL_MSG_CT_DELETE), 0,
              absl::StrCat("forget the UDP flow from '", flow.source.ToString(), "' to port ",
                           flow.destination_port),
              ENOENT);
  batch.PutStruct(Header());
  batch.PutBytes(CTA_TUPLE_ORIG | NLA_F_NESTED, flow.original);
}

}  // namespace gantry::netlink
