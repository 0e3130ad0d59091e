#include "lib/rpc/listener.h"

#include <errno.h>
#include <grpcpp/server_posix.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"
#include "lib/sys/socket.h"

namespace gantry::rpc {
namespace {

constexpr int kBacklog = 512;
constexpr int kPauseWhenFullMilliseconds = 100;

bool MayTalkToUs(int fd) {
  absl::StatusOr<sys::PeerCredentials> peer = sys::GetPeerCredentials(fd);
  if (peer.ok() && (peer->uid == 0 || peer->uid == ::geteuid())) return true;
  log::Warning("refused a connection of another user",
               {{"uid", peer.ok() ? peer->uid : 0}, {"pid", peer.ok() ? peer->pid : 0}});
  return false;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::Open(const std::string& path) {
  ASSIGN_OR_RETURN(sys::UniqueFd listener, sys::ListenUnix(path, kBacklog));
  sys::UniqueFd wake(::eventfd(0, EFD_CLOEXEC));
  if (!wake.ok()) return sys::ErrnoError(errno, "make an eventfd");
  return std::unique_ptr<Listener>(new Listener(path, std::move(listener), std::move(wake)));
}

Listener::Listener(std::string path, sys::UniqueFd listener, sys::UniqueFd wake)
    : path_(std::move(path)), listener_(std::move(listener)), wake_(std::move(wake)) {}

Listener::~Listener() { Stop(); }

void Listener::Start(grpc::Server& server) {
  thread_ = std::thread([this, &server] { Run(server); });
}

void Listener::Stop() {
  if (!listener_.ok()) return;
  (void)sys::Unlink(path_);
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
  if (thread_.joinable()) thread_.join();
  listener_.Reset();
}

void Listener::Run(grpc::Server& server) {
  for (;;) {
    pollfd ready[2] = {{listener_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    if (::poll(ready, 2, -1) < 0) continue;  // EINTR is the only error possible here.
    if (ready[1].revents != 0) return;
    absl::StatusOr<sys::UniqueFd> connection = sys::Accept(listener_, SOCK_NONBLOCK);
    if (!connection.ok()) {
      log::Warning("cannot accept a connection", {{"error", connection.status()}});
      // Out of descriptors: the connection stays queued, so wait for a stop or a little time.
      ::poll(&ready[1], 1, kPauseWhenFullMilliseconds);
      continue;
    }
    if (MayTalkToUs(connection->get())) {
      grpc::AddInsecureChannelFromFd(&server, connection->Release());
    }
  }
}

}  // namespace gantry::rpc
