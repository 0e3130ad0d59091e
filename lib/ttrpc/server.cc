#include "lib/ttrpc/server.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/socket.h"

namespace gantry::ttrpc {

void Responder::Reply(const absl::Status& status, absl::string_view payload) const {
  server_->Send(connection_, EncodeResponseFrame(stream_, status, payload));
}

void Responder::Reply(const absl::StatusOr<std::string>& payload) const {
  Reply(payload.status(), payload.ok() ? absl::string_view(*payload) : "");
}

Server::Server(sys::EventLoop& loop, Handler handler) : loop_(loop), handler_(std::move(handler)) {}

Server::~Server() {
  StopListening();
  while (!connections_.empty()) Close(connections_.begin()->first);
}

absl::Status Server::Listen(sys::UniqueFd listener) {
  ASSIGN_OR_RETURN(listen_watch_,
                   loop_.Add(listener.get(), EPOLLIN, [this](uint32_t) { Accept(); }));
  listener_ = std::move(listener);
  return absl::OkStatus();
}

void Server::StopListening() {
  loop_.Remove(std::exchange(listen_watch_, 0));
  listener_.Reset();
}

void Server::Accept() {
  for (;;) {
    absl::StatusOr<sys::UniqueFd> socket = sys::Accept(listener_, SOCK_NONBLOCK);
    if (!socket.ok()) return;  // No more for now, or none of them was there any longer.
    const absl::StatusOr<sys::PeerCredentials> peer = sys::GetPeerCredentials(socket->get());
    if (!peer.ok() || peer->uid != ::geteuid() || peer->gid != ::getegid()) continue;
    if (connections_.size() >= max_connections_) continue;
    AddConnection(*std::move(socket));
  }
}

void Server::AddConnection(sys::UniqueFd socket) {
  const uint64_t id = next_connection_++;
  auto connection = std::make_unique<Connection>();
  connection->socket = std::move(socket);
  absl::StatusOr<sys::EventLoop::Watch> watch = loop_.Add(
      connection->socket.get(), EPOLLIN, [this, id](uint32_t events) { OnEvents(id, events); });
  if (!watch.ok()) return;  // Out of kernel memory: the peer sees a closed connection.
  connection->watch = *watch;
  connections_.emplace(id, std::move(connection));
}

void Server::OnEvents(uint64_t id, uint32_t events) {
  if (events & EPOLLOUT) Flush(id);
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) Read(id);
}

bool Server::Sniff(uint64_t id, Connection& connection) {
  char first;
  const ssize_t got = ::recv(connection.socket.get(), &first, 1, MSG_PEEK);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (got <= 0) {
    Close(id);
    return false;
  }
  connection.sniffed = true;
  if (first == 0) return true;
  sys::UniqueFd foreign = std::move(connection.socket);
  loop_.Remove(connection.watch);
  connections_.erase(id);
  if (foreign_) foreign_(std::move(foreign));
  return false;
}

void Server::Read(uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  if (!connection.sniffed && !Sniff(id, connection)) return;
  const auto [space, size] = connection.reader.Space();
  const ssize_t got = ::recv(connection.socket.get(), space, size, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    Close(id);
    return;
  }
  connection.reader.Commit(static_cast<size_t>(got));
  FrameReader::Frame frame;
  // A handler may close the connection, so it is looked up again for each frame.
  for (auto at = connections_.find(id); at != connections_.end() && at->second->reader.Next(&frame);
       at = connections_.find(id)) {
    Dispatch(id, frame);
  }
}

void Server::Dispatch(uint64_t id, const FrameReader::Frame& frame) {
  Connection& connection = *connections_.find(id)->second;
  const uint32_t stream = frame.header.stream_id;
  const Responder responder(this, id, stream);
  if (frame.oversized) {
    responder.Reply(absl::ResourceExhaustedError(absl::StrCat(
        "message of ", frame.header.body_bytes, " bytes; ttrpc carries at most ", kMaxBodyBytes)));
    return;
  }
  if (frame.header.type != static_cast<uint8_t>(MessageType::kRequest)) {
    responder.Reply(absl::InvalidArgumentError(
        absl::StrCat("message type ", frame.header.type, " opens no call; send a request")));
    return;
  }
  if (stream % 2 == 0 || stream <= connection.last_stream) {
    responder.Reply(absl::InvalidArgumentError(
        absl::StrCat("stream id ", stream, " must be odd and above ", connection.last_stream)));
    return;
  }
  connection.last_stream = stream;
  if (frame.header.flags != 0) {
    responder.Reply(absl::UnimplementedError("streams are not served here; make a unary call"));
    return;
  }
  const absl::StatusOr<Request> request = DecodeRequest(frame.body);
  if (!request.ok()) {
    responder.Reply(request.status());
    return;
  }
  handler_(*request, responder);
}

void Server::Send(uint64_t id, std::string frame) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  if (connection.out.size() + frame.size() > kMaxQueuedBytes) {
    // Not now: the caller may be in the middle of this connection's frames.
    loop_.Post([this, id] { Close(id); });
    return;
  }
  if (connection.out.empty()) {
    connection.out = std::move(frame);
    Flush(id);
  } else {
    connection.out += frame;
  }
}

void Server::Flush(uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  size_t sent = 0;
  while (sent < connection.out.size()) {
    const ssize_t count = ::send(connection.socket.get(), connection.out.data() + sent,
                                 connection.out.size() - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) {
      // The reading side notices the end of the connection and closes it.
      connection.out.clear();
      sent = 0;
      break;
    }
    if (count < 0) break;
    sent += static_cast<size_t>(count);
  }
  if (sent == connection.out.size()) {
    std::string().swap(connection.out);
  } else {
    connection.out.erase(0, sent);
  }
  const bool want_write = !connection.out.empty();
  if (want_write != connection.writing) {
    connection.writing = want_write;
    (void)loop_.Modify(connection.watch, want_write ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }
}

bool Server::flushed() const {
  for (const auto& [id, connection] : connections_) {
    if (!connection->out.empty()) return false;
  }
  return true;
}

void Server::Close(uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  loop_.Remove(found->second->watch);
  connections_.erase(found);
}

}  // namespace gantry::ttrpc
