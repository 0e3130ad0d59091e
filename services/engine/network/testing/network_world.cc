#include "services/engine/network/testing/network_world.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/netlink/network_namespace.h"
#include "lib/netlink/route.h"
#include "lib/netlink/socket.h"
#include "lib/sys/errno.h"
#include "lib/testing/status_matchers.h"

namespace gantry::network {
namespace {

constexpr absl::string_view kWord = "gantry";

sockaddr_in SocketAddress(const std::string& ip, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  ::inet_pton(AF_INET, ip.c_str(), &address.sin_addr);
  return address;
}

std::string Text(const sockaddr_in& address) {
  return netlink::Ipv4Address{ntohl(address.sin_addr.s_addr)}.ToString();
}

absl::Status SocketError(absl::string_view attempt) {
  if (errno == EAGAIN || errno == EINPROGRESS) {
    return absl::DeadlineExceededError(absl::StrCat(attempt, ": nothing came"));
  }
  return sys::ErrnoError(errno, attempt);
}

absl::Status Configure(netlink::Socket& socket, const std::string& interface,
                       const std::string& address, const std::string& gateway) {
  netlink::Batch batch;
  netlink::SetUp(batch, 1);
  ASSIGN_OR_RETURN(netlink::Link link, netlink::FindLink(socket, interface));
  netlink::SetUp(batch, link.index);
  netlink::AddAddress(batch, link.index, {*netlink::ParseIpv4(address), 24});
  if (!gateway.empty()) netlink::AddDefaultRoute(batch, *netlink::ParseIpv4(gateway));
  return socket.Execute(batch);
}

}  // namespace

NetworkWorld* NetworkWorld::Get() {
  static NetworkWorld* const world = []() -> NetworkWorld* {
    if (!testing::IsRoot()) return nullptr;
    absl::StatusOr<sys::TempDir> directory = sys::TempDir::Create();
    EXPECT_OK(directory);
    if (!directory.ok()) return nullptr;
    auto* made = new NetworkWorld(*std::move(directory));
    absl::Status built = made->Build();
    EXPECT_OK(built);
    // Everything but the directory goes with the program's namespaces.
    static const pid_t owner = ::getpid();
    std::atexit([] {
      if (::getpid() == owner) ::umount2(NetworkWorld::Get()->directory().c_str(), MNT_DETACH);
      if (::getpid() == owner) ::rmdir(NetworkWorld::Get()->directory().c_str());
    });
    return built.ok() ? made : nullptr;
  }();
  return world;
}

absl::Status NetworkWorld::Build() {
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) return sys::ErrnoError(errno, "unshare");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("tmpfs", directory().c_str(), "tmpfs", 0, nullptr) != 0) {
    return sys::ErrnoError(errno, "make mounts private");
  }
  ASSIGN_OR_RETURN(netlink::Socket host, netlink::Socket::Open(NETLINK_ROUTE));
  ASSIGN_OR_RETURN(outside_,
                   netlink::MakeNamespace(absl::StrCat(directory(), "/outside"),
                                          [&](const sys::UniqueFd& outside) -> absl::Status {
                                            netlink::VethSpec uplink;
                                            uplink.name = "uplink0";
                                            uplink.peer_name = "eth0";
                                            uplink.peer_mac = {2, 0, 0, 0, 0, 2};
                                            uplink.peer_namespace = &outside;
                                            netlink::Batch batch;
                                            netlink::AddVeth(batch, uplink);
                                            RETURN_IF_ERROR(host.Execute(batch));
                                            ASSIGN_OR_RETURN(netlink::Socket inside,
                                                             netlink::Socket::Open(NETLINK_ROUTE));
                                            // The neighbour would send to container addresses by
                                            // the host, if the host let it.
                                            return Configure(inside, "eth0", kOutsideIp, kHostIp);
                                          }));
  return Configure(host, "uplink0", kHostIp, kOutsideIp);
}

absl::StatusOr<sys::UniqueFd> OpenSocket(const sys::UniqueFd* where, Protocol protocol) {
  sys::UniqueFd made;
  const auto open = [&]() -> absl::Status {
    const int type = protocol == Protocol::kTcp ? SOCK_STREAM : SOCK_DGRAM;
    made = sys::UniqueFd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    return made.ok() ? absl::OkStatus() : sys::ErrnoError(errno, "open a socket");
  };
  // A socket stays in the namespace it was opened in.
  RETURN_IF_ERROR(where == nullptr ? open() : netlink::RunInNamespace(*where, open));
  return made;
}

absl::Status SetPatience(const sys::UniqueFd& socket, absl::Duration patience) {
  const timeval limit = absl::ToTimeval(patience);
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0 ||
      ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0) {
    return sys::ErrnoError(errno, "limit a socket's patience");
  }
  return absl::OkStatus();
}

absl::StatusOr<sys::UniqueFd> Listen(const sys::UniqueFd* where, Protocol protocol,
                                     const std::string& ip, uint16_t port) {
  ASSIGN_OR_RETURN(sys::UniqueFd socket, OpenSocket(where, protocol));
  RETURN_IF_ERROR(SetPatience(socket, absl::Seconds(5)));
  const sockaddr_in address = SocketAddress(ip, port);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      (protocol == Protocol::kTcp && ::listen(socket.get(), 16) != 0)) {
    return sys::ErrnoError(errno, absl::StrCat("listen on ", ip, ":", port));
  }
  return socket;
}

absl::StatusOr<sys::UniqueFd> Dial(const sys::UniqueFd* where, Protocol protocol,
                                   const std::string& ip, uint16_t port, absl::Duration patience) {
  ASSIGN_OR_RETURN(sys::UniqueFd socket, OpenSocket(where, protocol));
  RETURN_IF_ERROR(SetPatience(socket, patience));
  const sockaddr_in address = SocketAddress(ip, port);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return SocketError(absl::StrCat("connect to ", ip, ":", port));
  }
  return socket;
}

absl::StatusOr<std::string> Exchange(Protocol protocol, const sys::UniqueFd& client,
                                     const sys::UniqueFd& server) {
  if (::send(client.get(), kWord.data(), kWord.size(), MSG_NOSIGNAL) < 0) {
    return SocketError("send");
  }
  sockaddr_in peer{};
  socklen_t size = sizeof(peer);
  sys::UniqueFd accepted;
  if (protocol == Protocol::kTcp) {
    accepted.Reset(
        ::accept4(server.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC));
    if (!accepted.ok()) return SocketError("accept");
    RETURN_IF_ERROR(SetPatience(accepted, absl::Seconds(5)));
  }
  const int receiving = accepted.ok() ? accepted.get() : server.get();
  char buffer[64];
  const ssize_t received = ::recvfrom(receiving, buffer, sizeof(buffer), 0,
                                      accepted.ok() ? nullptr : reinterpret_cast<sockaddr*>(&peer),
                                      accepted.ok() ? nullptr : &size);
  if (received < 0) return SocketError("receive at the server");
  const ssize_t answered = accepted.ok()
                               ? ::send(receiving, buffer, received, MSG_NOSIGNAL)
                               : ::sendto(receiving, buffer, received, 0,
                                          reinterpret_cast<const sockaddr*>(&peer), sizeof(peer));
  if (answered < 0) return SocketError("answer");
  const ssize_t back = ::recv(client.get(), buffer, sizeof(buffer), 0);
  if (back < 0) return SocketError("receive the answer");
  if (absl::string_view(buffer, back) != kWord) return absl::DataLossError("another answer came");
  return Text(peer);
}

absl::StatusOr<std::string> Reach(const sys::UniqueFd* where, Protocol protocol,
                                  const std::string& ip, uint16_t port,
                                  const sys::UniqueFd& server) {
  ASSIGN_OR_RETURN(sys::UniqueFd client, Dial(where, protocol, ip, port));
  return Exchange(protocol, client, server);
}

}  // namespace gantry::network
