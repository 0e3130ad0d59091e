#include "tests/fault/cutting_proxy.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "lib/sys/errno.h"

namespace gantry::testing {
namespace {

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

bool SendAll(int fd, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t sent = ::send(fd, bytes, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes += sent;
    size -= static_cast<size_t>(sent);
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CuttingProxy>> CuttingProxy::Start(uint16_t port,
                                                                  uint16_t upstream_port) {
  sys::UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  (void)::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const sockaddr_in address = Loopback(port);
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener.get(), 64) != 0) {
    return sys::ErrnoError(errno, "listen for the proxy");
  }
  std::unique_ptr<CuttingProxy> proxy(new CuttingProxy(
      std::move(listener), sys::UniqueFd(::eventfd(0, EFD_CLOEXEC)), upstream_port));
  proxy->acceptor_ = std::thread([raw = proxy.get()] { raw->Accept(); });
  return proxy;
}

CuttingProxy::~CuttingProxy() {
  const uint64_t one = 1;
  (void)!::write(stop_.get(), &one, sizeof one);
  acceptor_.join();
  std::vector<std::thread> connections;
  {
    absl::MutexLock lock(&mutex_);
    connections.swap(connections_);
  }
  for (std::thread& connection : connections) connection.join();
}

void CuttingProxy::CutAfter(uint64_t answer_bytes, Cut how) {
  how_ = how;
  limit_ = answer_bytes;
}

void CuttingProxy::Accept() {
  for (;;) {
    pollfd ready[2] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(ready, 2, -1) < 0) continue;
    if (ready[1].revents != 0) return;
    sys::UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client.ok()) continue;
    absl::MutexLock lock(&mutex_);
    connections_.emplace_back([this, fd = client.Release()] { Forward(sys::UniqueFd(fd)); });
  }
}

void CuttingProxy::Forward(sys::UniqueFd client) {
  sys::UniqueFd upstream(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = Loopback(upstream_port_);
  if (::connect(upstream.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return;
  }
  std::array<char, 16384> buffer;
  uint64_t answered = 0;
  for (;;) {
    pollfd ready[3] = {
        {client.get(), POLLIN, 0}, {upstream.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(ready, 3, -1) < 0) continue;
    if (ready[2].revents != 0) return;
    if (ready[0].revents != 0) {
      const ssize_t count = ::recv(client.get(), buffer.data(), buffer.size(), 0);
      if (count <= 0 || !SendAll(upstream.get(), buffer.data(), static_cast<size_t>(count))) return;
    }
    if (ready[1].revents == 0) continue;
    const ssize_t count = ::recv(upstream.get(), buffer.data(), buffer.size(), 0);
    if (count <= 0) return;
    const uint64_t limit = limit_;
    const uint64_t allowed = limit > answered ? limit - answered : 0;
    const size_t passed = static_cast<size_t>(std::min<uint64_t>(allowed, count));
    if (!SendAll(client.get(), buffer.data(), passed)) return;
    answered += passed;
    if (passed == static_cast<size_t>(count)) continue;
    ++cuts_;
    // Closed with time zero to linger, the kernel sends a reset.
    const linger at_once = {how_ == Cut::kReset ? 1 : 0, 0};
    (void)::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    return;
  }
}

}  // namespace gantry::testing
