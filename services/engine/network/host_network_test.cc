// The real network, in a private network namespace that plays the host.
#include "services/engine/network/host_network.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <netpacket/packet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/netlink/network_namespace.h"
#include "lib/netlink/nftables.h"
#include "lib/netlink/route.h"
#include "lib/sys/file.h"
#include "lib/testing/status_matchers.h"
#include "services/engine/network/owner_mark.h"
#include "services/engine/network/testing/network_suite.h"
#include "services/engine/network/testing/network_world.h"

namespace gantry::network {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint16_t kInner = 80;

struct HostMaker {
  bool Available() const { return NetworkWorld::Get() != nullptr; }
  std::unique_ptr<Network> Make() {
    HostNetworkOptions options;
    options.run_dir = absl::StrCat(NetworkWorld::Get()->directory(), "/", RandomHex(4));
    options.bridge = "suite0";
    options.subnet = std::string(kSuiteSubnet);
    options.pool_size = 3;
    return *HostNetwork::Create(options);
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Host, NetworkSuite, HostMaker);

class HostNetworkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_ROOT();
    world_ = NetworkWorld::Get();
    ASSERT_NE(world_, nullptr);
    options_.run_dir = absl::StrCat(world_->directory(), "/", RandomHex(4));
    options_.pool_size = 2;
  }

  void TearDown() override {
    failpoint::DisarmAll();
    if (network_ == nullptr) return;
    for (const Endpoint& endpoint : network_->Info().connected) {
      EXPECT_OK(network_->Release(endpoint.container_id));
    }
    network_.reset();
    ExpectNothingLeft();
  }

  void Start(const std::vector<Endpoint>& live = {}) {
    absl::StatusOr<std::unique_ptr<HostNetwork>> made = HostNetwork::Create(options_);
    ASSERT_OK(made);
    network_ = *std::move(made);
    absl::StatusOr<AdoptReport> report = network_->Adopt(live);
    ASSERT_OK(report);
    report_ = *std::move(report);
    EXPECT_THAT(report_.problems, IsEmpty());
  }

  void ExpectCleanAudit() {
    absl::StatusOr<rpc::AuditReport> audit = network_->Audit();
    ASSERT_OK(audit);
    for (const rpc::Finding& finding : audit->findings) {
      ADD_FAILURE() << finding.kind << " " << finding.object << " " << finding.problem;
    }
  }

  // Neither interfaces, nor namespaces, nor our table.
  void ExpectNothingLeft() {
    const SandboxStore store(absl::StrCat(options_.run_dir, "/netns"));
    absl::StatusOr<SandboxStore::Inventory> inventory = store.List();
    ASSERT_OK(inventory);
    EXPECT_THAT(inventory->files, IsEmpty());
    EXPECT_TRUE(inventory->links.empty());
    EXPECT_TRUE(inventory->bridges.empty());
    netlink::Socket netfilter = *netlink::Socket::Open(NETLINK_NETFILTER);
    EXPECT_EQ(netlink::ReadTable(netfilter, "gantry")->chains, 0);
  }

  Endpoint Connect(const std::string& id, std::vector<PortRequest> ports = {}) {
    EndpointRequest request{.container_id = id};
    request.ports = std::move(ports);
    absl::StatusOr<Endpoint> endpoint = network_->Connect(request);
    EXPECT_OK(endpoint);
    return endpoint.ok() ? *endpoint : Endpoint{};
  }

  sys::UniqueFd Enter(const Endpoint& endpoint) {
    absl::StatusOr<sys::UniqueFd> opened = netlink::OpenNamespace(endpoint.netns_path);
    EXPECT_OK(opened);
    return opened.ok() ? *std::move(opened) : sys::UniqueFd();
  }

  sys::UniqueFd Serve(const Endpoint& endpoint, Protocol protocol = Protocol::kTcp,
                      uint16_t port = kInner) {
    const sys::UniqueFd inside = Enter(endpoint);
    absl::StatusOr<sys::UniqueFd> server = Listen(&inside, protocol, "0.0.0.0", port);
    EXPECT_OK(server);
    return server.ok() ? *std::move(server) : sys::UniqueFd();
  }

  NetworkWorld* world_ = nullptr;
  HostNetworkOptions options_;
  std::unique_ptr<HostNetwork> network_;
  AdoptReport report_;
};

TEST_F(HostNetworkTest, ContainersReachEachOtherByAddress) {
  Start();
  const Endpoint web = Connect("web");
  const Endpoint client = Connect("client");
  const sys::UniqueFd server = Serve(web);
  const sys::UniqueFd inside = Enter(client);

  absl::StatusOr<std::string> seen = Reach(&inside, Protocol::kTcp, web.ip, kInner, server);

  ASSERT_OK(seen);
  EXPECT_EQ(*seen, client.ip);
  ExpectCleanAudit();
}

TEST_F(HostNetworkTest, AContainerHasLoopbackAndWhatItsEndpointSays) {
  Start();
  for (Mode mode : {Mode::kBridge, Mode::kNone}) {
    EndpointRequest request{.container_id = std::string(ModeName(mode))};
    request.mode = mode;
    absl::StatusOr<Endpoint> endpoint = network_->Connect(request);
    ASSERT_OK(endpoint);
    const sys::UniqueFd inside = Enter(*endpoint);
    ASSERT_OK(netlink::RunInNamespace(inside, [&]() -> absl::Status {
      ASSIGN_OR_RETURN(netlink::Socket socket, netlink::Socket::Open(NETLINK_ROUTE));
      ASSIGN_OR_RETURN(netlink::Link lo, netlink::FindLink(socket, "lo"));
      EXPECT_TRUE(lo.up);
      absl::StatusOr<netlink::Link> eth0 = netlink::FindLink(socket, "eth0");
      if (mode == Mode::kNone) {
        EXPECT_THAT(eth0, HasCode(absl::StatusCode::kNotFound));
        return absl::OkStatus();
      }
      RETURN_IF_ERROR(eth0.status());
      EXPECT_TRUE(eth0->up);
      ASSIGN_OR_RETURN(std::vector<netlink::InterfaceAddress> addresses,
                       netlink::ListAddresses(socket));
      EXPECT_EQ(addresses.back().address.ToString(),
                absl::StrCat(endpoint->ip, "/", endpoint->prefix_length));
      EXPECT_EQ(*sys::ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"), "0\n");
      EXPECT_EQ(*sys::ReadFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6"), "1\n");
      return absl::OkStatus();
    }));
  }
}

TEST_F(HostNetworkTest, ContainersReachTheWorldByTheHostsAddress) {
  Start();
  const sys::UniqueFd inside = Enter(Connect("client"));
  absl::StatusOr<sys::UniqueFd> server =
      Listen(&world_->outside(), Protocol::kTcp, "0.0.0.0", kInner);
  ASSERT_OK(server);

  absl::StatusOr<std::string> seen =
      Reach(&inside, Protocol::kTcp, NetworkWorld::kOutsideIp, kInner, *server);

  ASSERT_OK(seen);
  EXPECT_EQ(*seen, NetworkWorld::kHostIp);
}

class PublishedPortTest : public HostNetworkTest, public ::testing::WithParamInterface<Protocol> {};

TEST_P(PublishedPortTest, IsReachedFromEverywhere) {
  Start();
  const Endpoint web = Connect("web", {{GetParam(), kInner, "", 8080}});
  const Endpoint neighbour = Connect("neighbour");
  const sys::UniqueFd server = Serve(web, GetParam());
  const sys::UniqueFd in_neighbour = Enter(neighbour);
  const sys::UniqueFd in_web = Enter(web);

  absl::StatusOr<std::string> outside =
      Reach(&world_->outside(), GetParam(), NetworkWorld::kHostIp, 8080, server);
  ASSERT_OK(outside);
  EXPECT_EQ(*outside, NetworkWorld::kOutsideIp) << "the container must see its true client";
  EXPECT_OK(Reach(nullptr, GetParam(), "127.0.0.1", 8080, server));
  EXPECT_OK(Reach(nullptr, GetParam(), NetworkWorld::kHostIp, 8080, server));
  EXPECT_OK(Reach(nullptr, GetParam(), web.gateway, 8080, server));
  EXPECT_OK(Reach(&in_neighbour, GetParam(), NetworkWorld::kHostIp, 8080, server));
  EXPECT_OK(Reach(&in_neighbour, GetParam(), web.gateway, 8080, server));
  EXPECT_OK(Reach(&in_web, GetParam(), NetworkWorld::kHostIp, 8080, server)) << "hairpin";
  ExpectCleanAudit();
}

TEST_P(PublishedPortTest, OnLoopbackOnlyIsNotReachedFromOutside) {
  Start();
  const Endpoint web = Connect("web", {{GetParam(), kInner, "127.0.0.1", 8080}});
  const sys::UniqueFd server = Serve(web, GetParam());

  EXPECT_OK(Reach(nullptr, GetParam(), "127.0.0.1", 8080, server));
  ASSERT_OK(SetPatience(server, absl::Milliseconds(300)));
  EXPECT_FALSE(Reach(&world_->outside(), GetParam(), NetworkWorld::kHostIp, 8080, server).ok());
}

TEST_P(PublishedPortTest, IsGoneAfterRelease) {
  Start();
  Endpoint web = Connect("web", {{GetParam(), kInner, "", 8080}});
  ASSERT_OK(network_->Release("web"));
  const Endpoint other = Connect("other", {{GetParam(), kInner, "", 8080}});
  const sys::UniqueFd server = Serve(other, GetParam());

  EXPECT_OK(Reach(&world_->outside(), GetParam(), NetworkWorld::kHostIp, 8080, server));
  network_->Settle();
  ExpectCleanAudit();
}

INSTANTIATE_TEST_SUITE_P(Protocols, PublishedPortTest,
                         ::testing::Values(Protocol::kTcp, Protocol::kUdp),
                         [](const auto& info) { return std::string(ProtocolName(info.param)); });

TEST_F(HostNetworkTest, AUdpClientThatNeverStopsReachesWhoeverHasThePortNow) {
  Start();
  absl::StatusOr<sys::UniqueFd> client =
      Dial(&world_->outside(), Protocol::kUdp, NetworkWorld::kHostIp, 5353);
  ASSERT_OK(client);
  // Nobody serves it yet; the host remembers the flow as one to itself.
  ASSERT_EQ(::send(client->get(), "early", 5, 0), 5);
  char refused;
  EXPECT_EQ(::recv(client->get(), &refused, 1, 0), -1);

  const Endpoint first = Connect("first", {{Protocol::kUdp, kInner, "", 5353}});
  EXPECT_OK(Exchange(Protocol::kUdp, *client, Serve(first, Protocol::kUdp)));
  ASSERT_OK(network_->Release("first"));
  const Endpoint second = Connect("second", {{Protocol::kUdp, kInner, "", 5353}});
  EXPECT_OK(Exchange(Protocol::kUdp, *client, Serve(second, Protocol::kUdp)));
}

TEST_F(HostNetworkTest, UnpublishedPortsAreNotReachedFromOutside) {
  Start();
  const Endpoint web = Connect("web", {{Protocol::kTcp, kInner, "", 8080}});
  const sys::UniqueFd server = Serve(web, Protocol::kTcp, 81);

  EXPECT_OK(Reach(nullptr, Protocol::kTcp, web.ip, 81, server)) << "the host itself may";
  EXPECT_THAT(Dial(&world_->outside(), Protocol::kTcp, web.ip, 81, absl::Milliseconds(300)),
              HasCode(absl::StatusCode::kDeadlineExceeded));
}

// A UDP packet as a container with CAP_NET_RAW could forge it, sent to the bridge's address.
absl::Status SendForged(const Endpoint& from, const sys::UniqueFd& inside, const std::string& to,
                        uint16_t port) {
  return netlink::RunInNamespace(inside, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(netlink::Socket route, netlink::Socket::Open(NETLINK_ROUTE));
    ASSIGN_OR_RETURN(netlink::Link eth0, netlink::FindLink(route, "eth0"));
    struct {
      iphdr ip;
      udphdr udp;
    } __attribute__((packed)) packet{};
    packet.ip.version = 4;
    packet.ip.ihl = 5;
    packet.ip.ttl = 64;
    packet.ip.protocol = IPPROTO_UDP;
    packet.ip.tot_len = htons(sizeof(packet));
    packet.ip.saddr = htonl(netlink::ParseIpv4(from.ip)->value);
    packet.ip.daddr = htonl(netlink::ParseIpv4(to)->value);
    uint16_t words[sizeof(iphdr) / 2];
    std::memcpy(words, &packet.ip, sizeof(words));
    uint32_t sum = 0;
    for (uint16_t word : words) sum += word;
    sum = (sum & 0xffff) + (sum >> 16);
    packet.ip.check = static_cast<uint16_t>(~(sum + (sum >> 16)));
    packet.udp.source = htons(4000);
    packet.udp.dest = htons(port);
    packet.udp.len = htons(sizeof(udphdr));  // Check sum 0: none.
    sys::UniqueFd raw(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP)));
    sockaddr_ll link{};
    link.sll_family = AF_PACKET;
    link.sll_protocol = htons(ETH_P_IP);
    link.sll_ifindex = eth0.index;
    link.sll_halen = 6;
    const netlink::MacAddress bridge = netlink::MacFor(*netlink::ParseIpv4(from.gateway));
    std::memcpy(link.sll_addr, bridge.data(), bridge.size());
    if (::sendto(raw.get(), &packet, sizeof(packet), 0, reinterpret_cast<sockaddr*>(&link),
                 sizeof(link)) < 0) {
      return absl::InternalError("the forged packet was not sent");
    }
    return absl::OkStatus();
  });
}

TEST_F(HostNetworkTest, AContainerCannotReachLoopbackOfTheHost) {
  Start();
  const Endpoint web = Connect("web");
  const sys::UniqueFd inside = Enter(web);
  absl::StatusOr<sys::UniqueFd> private_service = Listen(nullptr, Protocol::kUdp, "0.0.0.0", 5353);
  ASSERT_OK(private_service);

  // The second packet proves that the first would have arrived by now, and is well formed.
  ASSERT_OK(SendForged(web, inside, "127.0.0.1", 5353));
  ASSERT_OK(SendForged(web, inside, web.gateway, 5353));

  char buffer[8];
  EXPECT_EQ(::recv(private_service->get(), buffer, sizeof(buffer), 0), 0);
  EXPECT_EQ(::recv(private_service->get(), buffer, sizeof(buffer), MSG_DONTWAIT), -1);
}

TEST_F(HostNetworkTest, AProgramOnThePortIsNamedAndNothingIsLeft) {
  Start();
  absl::StatusOr<sys::UniqueFd> program = Listen(nullptr, Protocol::kTcp, "0.0.0.0", 8080);
  ASSERT_OK(program);
  EndpointRequest request{.container_id = "web"};
  request.ports = {{Protocol::kTcp, kInner, "", 8081}, {Protocol::kTcp, kInner, "", 8080}};

  EXPECT_THAT(network_->Connect(request),
              Fails(absl::StatusCode::kAlreadyExists, absl::StrCat("process ", ::getpid())));

  EXPECT_EQ(network_->Info().endpoints, 0u);
  ExpectCleanAudit();
  program->Reset();
  EXPECT_OK(network_->Connect(request));
}

TEST_F(HostNetworkTest, ThePoolServesAndFillsAgain) {
  Start();
  network_->Settle();
  EXPECT_EQ(network_->Info().pool_ready, 3u);  // Two on the bridge, one bare.
  Connect("a");
  Connect("b");
  EXPECT_EQ(network_->Info().pool_hits, 2u);
  network_->Settle();
  EXPECT_EQ(network_->Info().pool_ready, 3u);
  ExpectCleanAudit();
}

TEST_F(HostNetworkTest, WithoutAPoolEverythingIsMadeOnTheSpot) {
  options_.pool_size = 0;
  Start();
  Connect("a");
  EXPECT_EQ(network_->Info().pool_misses, 1u);
  EXPECT_EQ(network_->Info().pool_ready, 0u);
  ExpectCleanAudit();
}

TEST_F(HostNetworkTest, ATableFlushedByOthersComesBackByItself) {
  Start();
  const Endpoint web = Connect("web", {{Protocol::kTcp, kInner, "", 8080}});
  const sys::UniqueFd server = Serve(web);
  for (const char* damage : {"delete table ip gantry", "flush table ip gantry",
                             "flush map ip gantry ports_everywhere"}) {
    const uint64_t before = network_->Info().firewall_repairs;
    ASSERT_OK(netlink::ApplyRuleset(damage));
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (network_->Info().firewall_repairs == before && absl::Now() < deadline) ::sched_yield();
    EXPECT_OK(Reach(&world_->outside(), Protocol::kTcp, NetworkWorld::kHostIp, 8080, server))
        << damage;
  }
  ExpectCleanAudit();
}

TEST_F(HostNetworkTest, OtherTablesAreNotTouched) {
  ASSERT_OK(netlink::ApplyRuleset("add table ip somebody\nadd chain ip somebody theirs"));
  Start();
  Connect("web", {{Protocol::kTcp, kInner, "", 8080}});
  ASSERT_OK(network_->Release("web"));
  network_.reset();
  netlink::Socket netfilter = *netlink::Socket::Open(NETLINK_NETFILTER);
  EXPECT_EQ(netlink::ReadTable(netfilter, "somebody")->chains, 1);
  ExpectNothingLeft();
  ASSERT_OK(netlink::ApplyRuleset("delete table ip somebody"));
}

TEST_F(HostNetworkTest, ASubnetTheHostUsesIsRefusedOrAvoided) {
  options_.subnet = "198.51.100.0/24";
  absl::StatusOr<std::unique_ptr<HostNetwork>> made = HostNetwork::Create(options_);
  ASSERT_OK(made);
  absl::StatusOr<AdoptReport> report = (*made)->Adopt({});
  ASSERT_OK(report);
  EXPECT_THAT(report->problems, Contains(HasSubstr("uplink0")));
  EXPECT_THAT((*made)->Connect({.container_id = "web"}),
              Fails(absl::StatusCode::kFailedPrecondition, "198.51.100.0/24"));
  EndpointRequest none{.container_id = "quiet"};
  none.mode = Mode::kNone;
  EXPECT_OK((*made)->Connect(none)) << "what needs no bridge works";
  EXPECT_OK((*made)->Release("quiet"));
}

TEST_F(HostNetworkTest, SuitesOfOneHostKeepApart) {
  Start();
  HostNetworkOptions second = options_;
  second.run_dir = absl::StrCat(world_->directory(), "/", RandomHex(4));
  second.bridge = "gantry0-two";
  absl::StatusOr<std::unique_ptr<HostNetwork>> made = HostNetwork::Create(second);
  ASSERT_OK(made);
  absl::StatusOr<AdoptReport> report = (*made)->Adopt({});
  ASSERT_OK(report);
  EXPECT_THAT(report->removed, IsEmpty()) << "what belongs to the first suite";
  EXPECT_THAT(report->problems, IsEmpty());
  EXPECT_NE((*made)->Info().subnet, network_->Info().subnet);

  const Endpoint web = Connect("web", {{Protocol::kTcp, kInner, "", 8080}});
  EndpointRequest request{.container_id = "web"};
  request.ports = {{Protocol::kTcp, kInner, "", 8081}};
  absl::StatusOr<Endpoint> other = (*made)->Connect(request);
  ASSERT_OK(other);
  const sys::UniqueFd server = Serve(web);
  const sys::UniqueFd other_server = Serve(*other);
  EXPECT_OK(Reach(nullptr, Protocol::kTcp, "127.0.0.1", 8080, server));
  EXPECT_OK(Reach(nullptr, Protocol::kTcp, "127.0.0.1", 8081, other_server));
  ASSERT_OK((*made)->Release("web"));
  made->reset();
  EXPECT_OK(Reach(nullptr, Protocol::kTcp, "127.0.0.1", 8080, server));
  ExpectCleanAudit();
}

TEST_F(HostNetworkTest, ABridgeOfSomebodyElseIsLeftAlone) {
  netlink::Socket socket = *netlink::Socket::Open(NETLINK_ROUTE);
  netlink::Batch batch;
  netlink::AddBridge(batch, {"gantry0", 7, {2, 0, 0, 0, 0, 9}});
  ASSERT_OK(socket.Execute(batch));
  {
    absl::StatusOr<std::unique_ptr<HostNetwork>> made = HostNetwork::Create(options_);
    ASSERT_OK(made);
    ASSERT_OK((*made)->Adopt({}));
    EXPECT_THAT((*made)->Connect({.container_id = "web"}),
                Fails(absl::StatusCode::kFailedPrecondition, "not this suite's bridge"));
  }
  absl::StatusOr<netlink::Link> theirs = netlink::FindLink(socket, "gantry0");
  ASSERT_OK(theirs);
  EXPECT_EQ(theirs->group, 7u);
  ASSERT_OK(RemoveBridge("gantry0", 7));
}

TEST_F(HostNetworkTest, EndpointsOutliveTheEngineAndAreAdopted) {
  Start();
  const Endpoint web = Connect("web", {{Protocol::kTcp, kInner, "", 8080}});
  const Endpoint forgotten = Connect("forgotten");
  const sys::UniqueFd server = Serve(web);
  network_.reset();
  EXPECT_OK(Reach(&world_->outside(), Protocol::kTcp, NetworkWorld::kHostIp, 8080, server));

  Start({web});

  EXPECT_THAT(report_.lost, IsEmpty());
  EXPECT_THAT(report_.removed,
              Contains(absl::StrCat("netns ", SandboxStore::ShortName(forgotten.endpoint_id))));
  EXPECT_OK(Reach(&world_->outside(), Protocol::kTcp, NetworkWorld::kHostIp, 8080, server));
  EXPECT_NE(Connect("next").ip, web.ip);
  EndpointRequest rival{.container_id = "rival"};
  rival.ports = {{Protocol::kTcp, kInner, "", 8080}};
  EXPECT_THAT(network_->Connect(rival), Fails(absl::StatusCode::kAlreadyExists, "'web'"));
  ExpectCleanAudit();
}

TEST_F(HostNetworkTest, ADeletedBridgeIsMadeAgainAroundRunningContainers) {
  Start();
  const Endpoint web = Connect("web", {{Protocol::kTcp, kInner, "", 8080}});
  const sys::UniqueFd server = Serve(web);
  network_.reset();
  ASSERT_OK(RemoveBridge("gantry0", InterfaceGroup(absl::StrCat(options_.run_dir, "/netns"))));

  Start({web});

  EXPECT_OK(Reach(&world_->outside(), Protocol::kTcp, NetworkWorld::kHostIp, 8080, server));
}

TEST_F(HostNetworkTest, WhatIsGoneIsReportedAsLostAndFreed) {
  Start();
  const Endpoint unplugged = Connect("unplugged");
  const Endpoint unpinned = Connect("unpinned");
  network_.reset();
  const SandboxStore store(absl::StrCat(options_.run_dir, "/netns"));
  ASSERT_OK(store.RemoveLink(SandboxStore::LinkName(unplugged.endpoint_id)));
  ASSERT_OK(netlink::RemoveNamespace(unpinned.netns_path));

  Start({unplugged, unpinned});

  ASSERT_EQ(report_.lost.size(), 2u);
  EXPECT_EQ(report_.lost[0].container_id, "unplugged");
  EXPECT_THAT(report_.lost[0].reason, HasSubstr("interface"));
  EXPECT_EQ(network_->Info().endpoints, 0u);
  ExpectCleanAudit();
}

TEST_F(HostNetworkTest, TheAuditSeesWhatIsMissingAndWhatIsTooMuch) {
  options_.pool_size = 0;
  Start();
  const Endpoint web = Connect("web");
  const SandboxStore store(absl::StrCat(options_.run_dir, "/netns"));
  ASSERT_OK(store.RemoveLink(SandboxStore::LinkName(web.endpoint_id)));
  ASSERT_OK(store.Make({std::string(64, 'a')}, {}));

  absl::StatusOr<rpc::AuditReport> audit = network_->Audit();

  ASSERT_OK(audit);
  std::vector<std::string> problems;
  for (const rpc::Finding& finding : audit->findings) {
    problems.push_back(absl::StrCat(finding.kind, " ", finding.problem));
  }
  EXPECT_THAT(problems, Contains("veth is missing"));
  EXPECT_THAT(problems, Contains("netns belongs to no container"));
  EXPECT_THAT(problems, Contains(HasSubstr("address is not on the interface")));
  ASSERT_OK(store.Remove({std::string(64, 'a')}));
}

}  // namespace
}  // namespace gantry::network
