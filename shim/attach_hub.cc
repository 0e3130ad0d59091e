#include "shim/attach_hub.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"

namespace gantry::shim {
namespace {

constexpr size_t kReadBytes = 16 << 10;
constexpr size_t kMaxGuests = 64;

attach::FrameType TypeOf(StreamName stream) {
  return stream == StreamName::kStdout ? attach::FrameType::kStdout : attach::FrameType::kStderr;
}

void SendError(const sys::UniqueFd& socket, const absl::Status& status) {
  std::string wire;
  attach::AppendError(status, &wire);
  // A fresh socket has room for one small frame; when it has not, the closed connection must do.
  (void)!::send(socket.get(), wire.data(), wire.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

AttachHub::~AttachHub() {
  *alive_ = false;
  loop_.Cancel(patience_);
  for (auto& [id, client] : clients_) loop_.Remove(client.watch);
}

void AttachHub::StartWaiting(absl::Duration patience) {
  if (!holding_ || patience_ != 0) return;
  patience_ = loop_.After(patience, [this] {
    patience_ = 0;
    // A process that has ended holds nobody up: its last words stay for whoever comes before it is
    // deleted.
    if (exit_.has_value()) {
      process_.HubChanged();
      return;
    }
    holding_ = false;
    held_.clear();
    held_.shrink_to_fit();
    held_bytes_ = 0;
    process_.HubChanged();
  });
}

void AttachHub::Add(sys::UniqueFd socket, attach::FrameParser parser, const attach::Hello& hello) {
  if (clients_.size() >= kMaxClients) {
    SendError(socket, absl::ResourceExhaustedError(
                          absl::StrCat(kMaxClients, " clients are attached already")));
    return;
  }
  const uint64_t id = next_id_++;
  absl::StatusOr<sys::EventLoop::Watch> watch =
      loop_.Add(socket.get(), EPOLLIN, [this, id](uint32_t events) { OnEvents(id, events); });
  if (!watch.ok()) {
    SendError(socket, watch.status());
    return;
  }
  Client& client = clients_[id];
  client.socket = std::move(socket);
  client.watch = *watch;
  client.watched_events = EPOLLIN;
  client.parser = std::move(parser);
  client.hello = hello;
  attach::AppendAccepted(process_.Describe(), &client.out);
  if (hello.columns != 0 && hello.rows != 0) process_.Resize(hello.columns, hello.rows);
  if (holding_) {
    holding_ = false;
    loop_.Cancel(std::exchange(patience_, 0));
    for (const auto& [stream, bytes] : held_) {
      const bool wanted = stream == StreamName::kStdout ? hello.want_stdout : hello.want_stderr;
      if (wanted) attach::AppendBytes(TypeOf(stream), bytes, &client.out);
    }
    held_.clear();
    held_.shrink_to_fit();
    held_bytes_ = 0;
  }
  if (exit_.has_value()) {
    attach::AppendExit(*exit_, &client.out);
    client.closing = true;
  }
  const std::shared_ptr<bool> alive = alive_;
  Flush(id);
  if (*alive) Read(id);  // What came together with HELLO.
  if (*alive) process_.HubChanged();
}

void AttachHub::Output(StreamName stream, absl::string_view bytes) {
  if (holding_) {
    if (held_.empty() || held_.back().first != stream) held_.emplace_back(stream, "");
    held_.back().second.append(bytes.data(), bytes.size());
    held_bytes_ += bytes.size();
    return;
  }
  // Flush may remove the client, so the next one is found before.
  for (auto at = clients_.begin(); at != clients_.end();) {
    const uint64_t id = at->first;
    Client& client = at->second;
    ++at;
    const bool wanted =
        stream == StreamName::kStdout ? client.hello.want_stdout : client.hello.want_stderr;
    if (!wanted || client.closing) continue;
    Deliver(client, stream, bytes);
    Flush(id);
  }
}

void AttachHub::Deliver(Client& client, StreamName stream, absl::string_view bytes) {
  if (!client.hello.flow_control) {
    const bool full = client.lost > 0 ? client.out.size() > kMaxQueuedBytes / 2
                                      : client.out.size() + bytes.size() > kMaxQueuedBytes;
    if (full) {
      client.lost += bytes.size();
      return;
    }
    if (client.lost > 0) attach::AppendLost(std::exchange(client.lost, 0), &client.out);
  }
  attach::AppendBytes(TypeOf(stream), bytes, &client.out);
}

void AttachHub::Finish(const attach::Exit& exit) {
  exit_ = exit;
  for (auto at = clients_.begin(); at != clients_.end();) {
    const uint64_t id = at->first;
    Client& client = at->second;
    ++at;
    if (client.lost > 0) attach::AppendLost(std::exchange(client.lost, 0), &client.out);
    attach::AppendExit(exit, &client.out);
    client.closing = true;
    Flush(id);
  }
}

bool AttachHub::blocked() const {
  if (holding_ && held_bytes_ >= kHoldBytes) return true;
  for (const auto& [id, client] : clients_) {
    if (client.hello.flow_control && client.out.size() >= kFlowControlBytes) return true;
  }
  return false;
}

bool AttachHub::idle() const {
  // Who asked for the output is on the way: a short program may have ended before they arrive.
  if (holding_ && patience_ != 0) return false;
  return std::all_of(clients_.begin(), clients_.end(),
                     [](const auto& entry) { return entry.second.out.empty(); });
}

void AttachHub::InputDrained() {
  for (auto& [id, client] : clients_) UpdateWatch(client);
  // Input that was parsed half-way waits in the parsers, and no event announces it.
  loop_.Post([this, alive = alive_] {
    if (!*alive) return;
    std::vector<uint64_t> ids;
    for (const auto& [id, client] : clients_) {
      if (client.parser.buffered_bytes() > 0) ids.push_back(id);
    }
    for (const uint64_t id : ids) {
      if (*alive) Read(id);
    }
  });
}

void AttachHub::OnEvents(uint64_t id, uint32_t events) {
  const std::shared_ptr<bool> alive = alive_;
  if (events & EPOLLOUT) {
    Flush(id);
    if (*alive) process_.HubChanged();
  }
  if (*alive && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) Read(id);
}

void AttachHub::Read(uint64_t id) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  Client& client = found->second;
  char buffer[kReadBytes];
  const ssize_t got = ::recv(client.socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
  const bool ended = got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
  if (got > 0) client.parser.Append(absl::string_view(buffer, static_cast<size_t>(got)));
  attach::Frame frame;
  // While the process cannot take more input, frames stay in the parser and bytes in the socket;
  // the last frames of a client that left are taken all the same.
  while (ended || !client.hello.want_stdin || !process_.InputFull()) {
    const absl::StatusOr<bool> more = client.parser.Next(&frame);
    if (!more.ok() || (*more && !Handle(client, frame))) {
      Close(id);
      return;
    }
    if (!*more) break;
  }
  if (ended) {
    Close(id);
    return;
  }
  UpdateWatch(client);
}

// False: the connection is to be closed.
bool AttachHub::Handle(Client& client, const attach::Frame& frame) {
  switch (frame.type) {
    case attach::FrameType::kStdin:
      if (!client.hello.want_stdin) return false;
      process_.Input(frame.payload);
      return true;
    case attach::FrameType::kCloseStdin:
      if (!client.hello.want_stdin) return false;
      process_.CloseInput();
      return true;
    case attach::FrameType::kResize: {
      const auto size = attach::ParseResize(frame.payload);
      if (!size.ok()) return false;
      process_.Resize(size->first, size->second);
      return true;
    }
    default:
      return false;  // DETACH, and what no client sends.
  }
}

void AttachHub::Flush(uint64_t id) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  Client& client = found->second;
  size_t sent = 0;
  while (sent < client.out.size()) {
    const ssize_t count = ::send(client.socket.get(), client.out.data() + sent,
                                 client.out.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count < 0) {
      Close(id);
      return;
    }
    sent += static_cast<size_t>(count);
  }
  if (sent == client.out.size()) {
    std::string().swap(client.out);
    if (client.closing) {
      Close(id);
      return;
    }
  } else {
    client.out.erase(0, sent);
  }
  UpdateWatch(client);
}

void AttachHub::UpdateWatch(Client& client) {
  const bool hold_input = client.hello.want_stdin && process_.InputFull();
  const uint32_t events =
      (hold_input ? 0u : uint32_t{EPOLLIN}) | (client.out.empty() ? 0u : uint32_t{EPOLLOUT});
  if (events == client.watched_events) return;
  if (loop_.Modify(client.watch, events).ok()) client.watched_events = events;
}

void AttachHub::Close(uint64_t id) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  const bool close_input = found->second.hello.want_stdin && found->second.hello.close_stdin_at_end;
  loop_.Remove(found->second.watch);
  clients_.erase(found);
  if (close_input) process_.CloseInput();
  // Later: the caller may be in the middle of reading the process.
  loop_.Post([this, alive = alive_] {
    if (*alive) process_.HubChanged();
  });
}

AttachDoor::~AttachDoor() {
  while (!guests_.empty()) Dismiss(guests_.begin()->first);
}

void AttachDoor::Admit(sys::UniqueFd socket) {
  if (guests_.size() >= kMaxGuests) return;
  const uint64_t id = next_id_++;
  absl::StatusOr<sys::EventLoop::Watch> watch =
      loop_.Add(socket.get(), EPOLLIN, [this, id](uint32_t) { Read(id); });
  if (!watch.ok()) return;
  Guest& guest = guests_[id];
  guest.socket = std::move(socket);
  guest.watch = *watch;
  guest.timer = loop_.After(absl::Seconds(10), [this, id] { Dismiss(id); });
  Read(id);
}

void AttachDoor::Dismiss(uint64_t id) {
  const auto found = guests_.find(id);
  if (found == guests_.end()) return;
  loop_.Remove(found->second.watch);
  loop_.Cancel(found->second.timer);
  guests_.erase(found);
}

void AttachDoor::Read(uint64_t id) {
  const auto found = guests_.find(id);
  if (found == guests_.end()) return;
  Guest& guest = found->second;
  char buffer[1024];
  const ssize_t got = ::recv(guest.socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    Dismiss(id);
    return;
  }
  absl::string_view bytes(buffer, static_cast<size_t>(got));
  const size_t missing = attach::kMagicBytes - guest.magic.size();
  guest.magic.append(bytes.data(), std::min(missing, bytes.size()));
  bytes.remove_prefix(std::min(missing, bytes.size()));
  guest.parser.Append(bytes);
  attach::Frame frame;
  absl::StatusOr<bool> more = false;
  absl::Status status;
  if (guest.magic != absl::string_view(attach::kMagic).substr(0, guest.magic.size())) {
    status = absl::InvalidArgumentError("neither ttrpc nor GAT1");
  } else if (guest.magic.size() == attach::kMagicBytes) {
    more = guest.parser.Next(&frame);
    status = more.status();
    if (status.ok() && *more && frame.type != attach::FrameType::kHello) {
      status = absl::InvalidArgumentError("attach: say HELLO first");
    }
  }
  if (status.ok() && !*more) return;
  attach::Hello hello;
  AttachHub* hub = nullptr;
  if (status.ok()) {
    absl::StatusOr<attach::Hello> parsed = attach::ParseHello(frame.payload);
    status = parsed.status();
    if (parsed.ok()) hello = *std::move(parsed);
  }
  if (status.ok()) {
    absl::StatusOr<AttachHub*> target = finder_(hello);
    status = target.status();
    if (target.ok()) hub = *target;
  }
  if (!status.ok()) {
    SendError(guest.socket, status);
    Dismiss(id);
    return;
  }
  sys::UniqueFd socket = std::move(guest.socket);
  attach::FrameParser parser = std::move(guest.parser);
  loop_.Remove(guest.watch);
  loop_.Cancel(guest.timer);
  guests_.erase(found);
  hub->Add(std::move(socket), std::move(parser), hello);
}

}  // namespace gantry::shim
