#include "services/engine/network/firewall.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/netlink/conntrack.h"
#include "lib/netlink/nftables.h"
#include "lib/netlink/route.h"
#include "lib/sys/errno.h"

namespace gantry::network {
namespace {

constexpr char kByAddress[] = "ports";
constexpr char kEverywhere[] = "ports_everywhere";
constexpr char kUsualBridge[] = "gantry0";

// @T table, @B bridge, @S subnet. Numbers instead of names for priorities, since nft 1.0.6 knows
// the names only for some hooks: -300 raw, -100 dstnat, 0 filter, 100 srcnat. `table` before
// `delete table` makes the deletion work whether or not the table exists; all of it is one
// transaction.
constexpr char kTable[] = R"(
table ip @T
delete table ip @T
table ip @T {
  map ports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  map ports_everywhere { type inet_proto . inet_service : ipv4_addr . inet_service; }
  chain loopback_guard {
    type filter hook prerouting priority -300; policy accept;
    iifname "@B" ip daddr 127.0.0.0/8 drop
  }
  chain from_outside {
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports
    fib daddr type local dnat ip to meta l4proto . th dport map @ports_everywhere
  }
  chain from_host {
    type nat hook output priority -100; policy accept;
    fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports
    fib daddr type local dnat ip to meta l4proto . th dport map @ports_everywhere
  }
  chain sources {
    type nat hook postrouting priority 100; policy accept;
    oifname != "@B" ip saddr @S masquerade
    oifname "@B" ip saddr 127.0.0.0/8 masquerade
    oifname "@B" ip saddr @S ct status dnat masquerade
  }
  chain to_containers {
    type filter hook forward priority 0; policy accept;
    oifname != "@B" accept
    iifname "@B" accept
    ct state established,related accept
    ct status dnat accept
    drop
  }
}
)";
constexpr int kChains = 5;
constexpr int kRules = 13;

void AppendPadded(std::string& bytes, const void* data, size_t size) {
  bytes.append(static_cast<const char*>(data), size);
  bytes.resize((bytes.size() + 3) / 4 * 4);
}

void AppendAddress(std::string& bytes, netlink::Ipv4Address address) {
  const uint32_t wire = htonl(address.value);
  AppendPadded(bytes, &wire, sizeof(wire));
}

void AppendPort(std::string& bytes, uint16_t port) {
  const uint16_t wire = htons(port);
  AppendPadded(bytes, &wire, sizeof(wire));
}

void AppendProtocol(std::string& bytes, Protocol protocol) {
  const uint8_t wire = protocol == Protocol::kTcp ? IPPROTO_TCP : IPPROTO_UDP;
  AppendPadded(bytes, &wire, sizeof(wire));
}

// The fields of a key or of data, back from their bytes, in nft's language.
class FieldReader {
 public:
  explicit FieldReader(absl::string_view bytes) : bytes_(bytes) {}
  std::string Address() {
    uint32_t wire = 0;
    Take(&wire, sizeof(wire));
    return netlink::Ipv4Address{ntohl(wire)}.ToString();
  }
  std::string Port() {
    uint16_t wire = 0;
    Take(&wire, sizeof(wire));
    return absl::StrCat(ntohs(wire));
  }
  std::string Protocol() {
    uint8_t wire = 0;
    Take(&wire, sizeof(wire));
    return wire == IPPROTO_TCP ? "tcp" : "udp";
  }

 private:
  void Take(void* out, size_t size) {
    if (bytes_.size() < 4) return;
    std::memcpy(out, bytes_.data(), size);
    bytes_.remove_prefix(4);
  }
  absl::string_view bytes_;
};

// Addresses of the host. Empty on failure.
std::set<netlink::Ipv4Address> OwnAddresses() {
  std::set<netlink::Ipv4Address> own;
  absl::StatusOr<netlink::Socket> socket = netlink::Socket::Open(NETLINK_ROUTE);
  if (!socket.ok()) return own;
  absl::StatusOr<std::vector<netlink::InterfaceAddress>> addresses =
      netlink::ListAddresses(*socket);
  if (!addresses.ok()) return own;
  for (const netlink::InterfaceAddress& address : *addresses) own.insert(address.address.address);
  return own;
}

std::string TableName(const std::string& bridge) {
  if (bridge == kUsualBridge) return "gantry";
  // Interface names may hold what names of tables may not.
  std::string name = absl::StrCat("gantry_", bridge);
  for (char& c : name) {
    if (!isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Firewall>> Firewall::Create(const std::string& bridge) {
  ASSIGN_OR_RETURN(netlink::Socket changes, netlink::Socket::Open(NETLINK_NETFILTER));
  ASSIGN_OR_RETURN(netlink::Socket events, netlink::Socket::Open(NETLINK_NETFILTER));
  const int group = NFNLGRP_NFTABLES;
  if (::setsockopt(events.fd().get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) !=
      0) {
    return sys::ErrnoError(errno, "listen to changes of the packet filter");
  }
  return std::unique_ptr<Firewall>(new Firewall(bridge, std::move(changes), std::move(events)));
}

Firewall::Firewall(std::string bridge, netlink::Socket changes, netlink::Socket events)
    : bridge_(std::move(bridge)),
      table_(TableName(bridge_)),
      events_(std::move(events)),
      own_port_(changes.port()),
      changes_(std::move(changes)) {}

void Firewall::Insert(Maps& maps, netlink::Ipv4Address container, const Port& port) {
  const netlink::Ipv4Address host =
      netlink::ParseIpv4(port.host_ip).value_or(netlink::Ipv4Address{});
  std::string key;
  if (host.value != 0) AppendAddress(key, host);
  AppendProtocol(key, port.protocol);
  AppendPort(key, port.host_port);
  std::string data;
  AppendAddress(data, container);
  AppendPort(data, port.container_port);
  (host.value != 0 ? maps.by_address : maps.everywhere)[key] = data;
}

std::string Firewall::Script(const Maps& maps) const {
  std::string script =
      absl::StrReplaceAll(kTable, {{"@T", table_}, {"@B", bridge_}, {"@S", subnet_.ToString()}});
  for (const auto& [key, data] : maps.by_address) {
    FieldReader from(key);
    FieldReader to(data);
    const std::string address = from.Address();
    const std::string protocol = from.Protocol();
    const std::string container = to.Address();
    absl::StrAppend(&script, "add element ip ", table_, " ", kByAddress, " { ", address, " . ",
                    protocol, " . ", from.Port(), " : ", container, " . ", to.Port(), " }\n");
  }
  for (const auto& [key, data] : maps.everywhere) {
    FieldReader from(key);
    FieldReader to(data);
    const std::string protocol = from.Protocol();
    const std::string container = to.Address();
    absl::StrAppend(&script, "add element ip ", table_, " ", kEverywhere, " { ", protocol, " . ",
                    from.Port(), " : ", container, " . ", to.Port(), " }\n");
  }
  return script;
}

absl::Status Firewall::Apply(const Maps& wanted) {
  RETURN_IF_ERROR(FAILPOINT("network.build_firewall.before"));
  RETURN_IF_ERROR(netlink::ApplyRuleset(Script(wanted)));
  built_ = true;
  dirty_ = false;
  maps_ = wanted;
  return FAILPOINT("network.build_firewall.after");
}

absl::Status Firewall::Rebuild(const netlink::Ipv4Prefix& subnet,
                               const std::vector<Publication>& publications) {
  Maps wanted;
  for (const Publication& publication : publications) {
    for (const Port& port : publication.ports) Insert(wanted, publication.container, port);
  }
  absl::MutexLock lock(&mutex_);
  subnet_ = subnet;
  return Annotate(Apply(wanted), absl::StrCat("build the nftables table '", table_, "'"));
}

absl::Status Firewall::Change(const Maps& add, const Maps& remove, const Maps& wanted) {
  if (!dirty_) {
    netlink::Batch batch;
    netlink::OpenTransaction(batch);
    const netlink::MapElements by_address(table_, kByAddress);
    const netlink::MapElements everywhere(table_, kEverywhere);
    for (const auto& [key, data] : remove.by_address) by_address.Remove(batch, key);
    for (const auto& [key, data] : remove.everywhere) everywhere.Remove(batch, key);
    for (const auto& [key, data] : add.by_address) by_address.Add(batch, key, data);
    for (const auto& [key, data] : add.everywhere) everywhere.Add(batch, key, data);
    netlink::CloseTransaction(batch);
    if (changes_.Execute(batch).ok()) {
      maps_ = wanted;
      return absl::OkStatus();
    }
    // Whatever the reason is, the table is not what we think: somebody flushed or changed it.
  }
  absl::Status rebuilt = Apply(wanted);
  if (!rebuilt.ok()) dirty_ = true;
  return rebuilt;
}

absl::Status Firewall::Publish(netlink::Ipv4Address container, const std::vector<Port>& ports) {
  if (ports.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(FAILPOINT("network.publish.before"));
  Maps add;
  for (const Port& port : ports) Insert(add, container, port);
  absl::MutexLock lock(&mutex_);
  Maps wanted = maps_;
  for (const auto& [key, data] : add.by_address) wanted.by_address[key] = data;
  for (const auto& [key, data] : add.everywhere) wanted.everywhere[key] = data;
  RETURN_IF_ERROR(Annotate(Change(add, {}, wanted), "publish ports"));
  ForgetUdpFlows(container, ports);
  return absl::OkStatus();
}

absl::Status Firewall::Unpublish(netlink::Ipv4Address container, const std::vector<Port>& ports) {
  if (ports.empty()) return absl::OkStatus();
  Maps remove;
  for (const Port& port : ports) Insert(remove, {}, port);
  absl::MutexLock lock(&mutex_);
  Maps wanted = maps_;
  for (const auto& [key, data] : remove.by_address) wanted.by_address.erase(key);
  for (const auto& [key, data] : remove.everywhere) wanted.everywhere.erase(key);
  absl::Status changed = Change({}, remove, wanted);
  maps_ = wanted;  // The ports are given back either way.
  ForgetUdpFlows(container, ports);
  return Annotate(changed, "take back published ports");
}

// Flows to one of the host's own addresses on one of these ports, translated to `container` or not
// at all. Others stay: a flow by this host to port 53 of a name server looks much the same.
// Failures are not reported: the flows then end by themselves, half a minute after their last
// packet.
void Firewall::ForgetUdpFlows(netlink::Ipv4Address container, const std::vector<Port>& ports) {
  netlink::Batch batch;
  std::set<netlink::Ipv4Address> own;
  for (const Port& port : ports) {
    if (port.protocol != Protocol::kUdp) continue;
    if (own.empty()) own = OwnAddresses();
    absl::StatusOr<std::vector<netlink::UdpFlow>> flows =
        netlink::ListUdpFlows(changes_, port.host_port);
    if (!flows.ok()) return;
    for (const netlink::UdpFlow& flow : *flows) {
      const bool to_host = own.contains(flow.destination) || flow.destination.value >> 24 == 127;
      const bool ours = flow.answered_by == container || flow.answered_by == flow.destination;
      if (to_host && ours) netlink::ForgetFlow(batch, flow);
    }
  }
  changes_.Execute(batch).IgnoreError();
}

absl::Status Firewall::Remove() {
  absl::MutexLock lock(&mutex_);
  if (!built_) return absl::OkStatus();
  built_ = false;
  maps_ = {};
  return RemoveTableOf(bridge_);
}

absl::Status Firewall::RemoveTableOf(const std::string& bridge) {
  const std::string table = TableName(bridge);
  return netlink::ApplyRuleset(absl::StrCat("table ip ", table, "\ndelete table ip ", table, "\n"));
}

absl::StatusOr<std::vector<std::string>> Firewall::Compare() {
  std::vector<std::string> differences;
  if (!built_) return differences;
  ASSIGN_OR_RETURN(netlink::TableContents contents, netlink::ReadTable(changes_, table_));
  if (contents.chains != kChains || contents.rules != kRules) {
    differences.push_back(absl::StrCat("table '", table_, "' has ", contents.chains, " chains and ",
                                       contents.rules, " rules instead of ", kChains, " and ",
                                       kRules));
    if (contents.chains == 0) return differences;
  }
  for (const auto& [map, wanted] : {std::make_pair(kByAddress, &maps_.by_address),
                                    std::make_pair(kEverywhere, &maps_.everywhere)}) {
    absl::StatusOr<std::vector<std::string>> keys = netlink::ListMapKeys(changes_, table_, map);
    if (keys.status().code() == absl::StatusCode::kNotFound) keys = std::vector<std::string>();
    if (!keys.ok()) return keys.status();
    size_t found = 0;
    for (const std::string& key : *keys) found += wanted->contains(key) ? 1 : 0;
    if (found == wanted->size() && keys->size() == wanted->size()) continue;
    differences.push_back(absl::StrCat("map '", map, "' has ", keys->size(), " elements, of which ",
                                       found, " of our ", wanted->size()));
  }
  return differences;
}

absl::StatusOr<std::vector<std::string>> Firewall::Differences() {
  absl::MutexLock lock(&mutex_);
  return Compare();
}

absl::StatusOr<bool> Firewall::HandleEvents() {
  ASSIGN_OR_RETURN(bool concerns_us, ReadEvents());
  if (!concerns_us) return false;
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(std::vector<std::string> differences, Compare());
  if (differences.empty()) return false;
  RETURN_IF_ERROR(Annotate(Apply(Maps(maps_)), "rebuild the packet filter after a foreign change"));
  return true;
}

absl::StatusOr<bool> Firewall::ReadEvents() {
  bool concerns_us = false;
  for (;;) {
    char buffer[32 << 10];
    const ssize_t size =
        ::recv(events_.fd().get(), buffer, sizeof(buffer), MSG_DONTWAIT | MSG_TRUNC);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return concerns_us;
    // ENOBUFS: more happened than fits. A long message may hold anything.
    if (size < 0 && errno != ENOBUFS) return sys::ErrnoError(errno, "read packet filter events");
    if (size < 0 || static_cast<size_t>(size) > sizeof(buffer)) {
      concerns_us = true;
      continue;
    }
    concerns_us = netlink::MentionsDeletion(absl::string_view(buffer, size), table_, own_port_) ||
                  concerns_us;
  }
}

}  // namespace gantry::network
