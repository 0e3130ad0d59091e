#include "services/engine/network/host_ports.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "lib/testing/status_matchers.h"

namespace gantry::network {
namespace {

using ::gantry::testing::Fails;
using ::gantry::testing::HasCode;

constexpr absl::StatusCode kTaken = absl::StatusCode::kAlreadyExists;

// A host on which the ports of `busy` belong to some program.
class HostPortsTest : public ::testing::Test {
 protected:
  std::set<uint16_t> busy_;
  HostPorts ports_{
      [this](Protocol, netlink::Ipv4Address, uint16_t port) -> absl::StatusOr<sys::UniqueFd> {
        if (busy_.contains(port)) return absl::AlreadyExistsError("in use by a program");
        return sys::UniqueFd();
      }};
};

TEST_F(HostPortsTest, AConflictNamesTheHolder) {
  ASSERT_OK(ports_.Reserve("0123456789abcdef", {{Protocol::kTcp, 80, "", 8080}}));
  EXPECT_THAT(ports_.Reserve("other", {{Protocol::kTcp, 80, "", 8080}}),
              Fails(kTaken, "'0.0.0.0:8080/tcp' is already allocated by container '0123456789ab'"));
}

TEST_F(HostPortsTest, OneAddressConflictsWithAllAddressesButNotWithAnother) {
  ASSERT_OK(ports_.Reserve("a", {{Protocol::kTcp, 80, "10.0.0.1", 80}}));
  EXPECT_OK(ports_.Reserve("b", {{Protocol::kTcp, 80, "10.0.0.2", 80}}));
  EXPECT_THAT(ports_.Reserve("c", {{Protocol::kTcp, 80, "", 80}}), HasCode(kTaken));
  EXPECT_OK(ports_.Reserve("c", {{Protocol::kUdp, 80, "", 80}}));
  EXPECT_THAT(ports_.Reserve("d", {{Protocol::kUdp, 80, "10.0.0.1", 80}}), HasCode(kTaken));
}

TEST_F(HostPortsTest, AllOrNothing) {
  busy_ = {81};
  EXPECT_THAT(ports_.Reserve("a", {{Protocol::kTcp, 80, "", 80}, {Protocol::kTcp, 81, "", 81}}),
              HasCode(kTaken));
  EXPECT_OK(ports_.Reserve("b", {{Protocol::kTcp, 80, "", 80}}));
}

TEST_F(HostPortsTest, ReleasedPortsAreFree) {
  ASSERT_OK(ports_.Reserve("a", {{Protocol::kTcp, 80, "", 80}, {Protocol::kUdp, 53, "", 53}}));
  ports_.Release("a");
  EXPECT_OK(ports_.Reserve("b", {{Protocol::kTcp, 80, "", 80}, {Protocol::kUdp, 53, "", 53}}));
}

TEST_F(HostPortsTest, ARangeGivesItsFirstFreePortAndSaysWhenThereIsNone) {
  busy_ = {8000};
  const PortRequest range{Protocol::kTcp, 80, "", 8000, 8002};
  EXPECT_EQ((*ports_.Reserve("a", {range}))[0].host_port, 8001);
  EXPECT_EQ((*ports_.Reserve("b", {range}))[0].host_port, 8002);
  EXPECT_THAT(ports_.Reserve("c", {range}),
              Fails(absl::StatusCode::kResourceExhausted, "8000-8002"));
}

TEST_F(HostPortsTest, FreePortsComeFromDockersRangeAndSkipTakenOnes) {
  busy_ = {49153, 49155};
  const PortRequest any{Protocol::kTcp, 80};
  EXPECT_EQ((*ports_.Reserve("a", {any}))[0].host_port, 49154);
  EXPECT_EQ((*ports_.Reserve("a", {any}))[0].host_port, 49156);
}

TEST_F(HostPortsTest, AdoptedPortsAreHeldEvenWhenAProgramHasTaken) {
  busy_ = {8080};
  ASSERT_OK(ports_.Adopt("a", {{Protocol::kTcp, 80, "0.0.0.0", 8080}}));
  busy_.clear();
  EXPECT_THAT(ports_.Reserve("b", {{Protocol::kTcp, 80, "", 8080}}), Fails(kTaken, "'a'"));
}

class BindHostPortTest : public ::testing::TestWithParam<Protocol> {
 protected:
  // A socket of a program, on a port the kernel chose.
  sys::UniqueFd Program(uint16_t* port) {
    const bool tcp = GetParam() == Protocol::kTcp;
    sys::UniqueFd socket(::socket(AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_TRUE(!tcp || ::listen(socket.get(), 1) == 0);
    EXPECT_EQ(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    *port = ntohs(address.sin_port);
    return socket;
  }
};

TEST_P(BindHostPortTest, AProgramThatHasThePortIsNamed) {
  uint16_t port = 0;
  sys::UniqueFd program = Program(&port);
  EXPECT_THAT(HostPorts::BindHostPort(GetParam(), {}, port),
              Fails(kTaken, absl::StrCat("process ", ::getpid())));
  program.Reset();
  EXPECT_OK(HostPorts::BindHostPort(GetParam(), {}, port));
}

TEST_P(BindHostPortTest, AHeldPortCannotBeTakenByAProgram) {
  uint16_t port = 0;
  Program(&port).Reset();
  absl::StatusOr<sys::UniqueFd> held = HostPorts::BindHostPort(GetParam(), {}, port);
  ASSERT_OK(held);

  const bool tcp = GetParam() == Protocol::kTcp;
  sys::UniqueFd late(::socket(AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (tcp) ::setsockopt(late.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  const bool got =
      ::bind(late.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
      (!tcp || ::listen(late.get(), 1) == 0);
  EXPECT_FALSE(got);
}

TEST_P(BindHostPortTest, AnAddressOfAnotherHostIsTheCallersMistake) {
  EXPECT_THAT(HostPorts::BindHostPort(GetParam(), *netlink::ParseIpv4("203.0.113.9"), 40001),
              Fails(absl::StatusCode::kInvalidArgument, "not an address of this host"));
}

INSTANTIATE_TEST_SUITE_P(Protocols, BindHostPortTest,
                         ::testing::Values(Protocol::kTcp, Protocol::kUdp));

}  // namespace
}  // namespace gantry::network
