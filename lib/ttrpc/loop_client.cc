#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/socket.h"
#include "lib/ttrpc/client.h"

namespace gantry::ttrpc {

std::string SocketPath(absl::string_view address) {
  absl::ConsumePrefix(&address, "unix://");
  return std::string(address);
}

absl::StatusOr<std::unique_ptr<LoopClient>> LoopClient::Connect(sys::EventLoop& loop,
                                                                const std::string& path,
                                                                std::function<void()> on_close) {
  auto client = std::unique_ptr<LoopClient>(new LoopClient(loop, std::move(on_close)));
  ASSIGN_OR_RETURN(client->socket_, sys::ConnectUnix(SocketPath(path)));
  if (::fcntl(client->socket_.get(), F_SETFL, O_NONBLOCK) != 0) {
    return sys::ErrnoError(errno, "make a socket non-blocking");
  }
  LoopClient* const raw = client.get();
  ASSIGN_OR_RETURN(client->watch_, loop.Add(client->socket_.get(), EPOLLIN,
                                            [raw](uint32_t events) { raw->OnEvents(events); }));
  return client;
}

LoopClient::~LoopClient() {
  *alive_ = false;
  loop_.Remove(watch_);
  for (auto& [stream, call] : pending_) loop_.Cancel(call.timer);
}

void LoopClient::Call(absl::string_view service, absl::string_view method,
                      absl::string_view payload, const Metadata& metadata, absl::Duration timeout,
                      Answer answer) {
  if (watch_ == 0) {
    answer(absl::UnavailableError("the peer has closed the connection"));
    return;
  }
  Request request{service, method, payload, 0, {metadata.begin(), metadata.end()}};
  const bool limited = timeout != absl::InfiniteDuration();
  if (limited) request.timeout_nanos = absl::ToInt64Nanoseconds(timeout);
  const uint32_t stream = next_stream_;
  absl::StatusOr<std::string> frame = EncodeRequestFrame(stream, request);
  if (!frame.ok()) {
    answer(frame.status());
    return;
  }
  next_stream_ += 2;
  Pending& call = pending_[stream];
  call.answer = std::move(answer);
  if (limited) {
    call.timer = loop_.After(timeout, [this, stream] {
      Finish(stream, absl::DeadlineExceededError("ttrpc call: no answer in time"));
    });
  }
  out_ += *frame;
  if (!Flush())
    loop_.Post([this, alive = alive_] {
      if (*alive) Fail();
    });
}

void LoopClient::Finish(uint32_t stream, absl::StatusOr<std::string> payload) {
  const auto found = pending_.find(stream);
  if (found == pending_.end()) return;
  Pending call = std::move(found->second);
  pending_.erase(found);
  loop_.Cancel(call.timer);
  call.answer(std::move(payload));
}

// False when the connection is broken.
bool LoopClient::Flush() {
  size_t sent = 0;
  bool broken = false;
  while (sent < out_.size()) {
    const ssize_t count =
        ::send(socket_.get(), out_.data() + sent, out_.size() - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      broken = errno != EAGAIN;
      break;
    }
    sent += static_cast<size_t>(count);
  }
  if (sent == out_.size()) {
    std::string().swap(out_);
  } else {
    out_.erase(0, sent);
  }
  (void)loop_.Modify(watch_, out_.empty() || broken ? EPOLLIN : EPOLLIN | EPOLLOUT);
  return !broken;
}

void LoopClient::OnEvents(uint32_t events) {
  if ((events & EPOLLOUT) && !Flush()) {
    Fail();
    return;
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
  const auto [space, size] = reader_.Space();
  const ssize_t got = ::recv(socket_.get(), space, size, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    Fail();
    return;
  }
  reader_.Commit(static_cast<size_t>(got));
  FrameReader::Frame frame;
  const std::shared_ptr<bool> alive = alive_;
  while (*alive && watch_ != 0 && reader_.Next(&frame)) {
    if (frame.header.type != static_cast<uint8_t>(MessageType::kResponse)) continue;
    Finish(frame.header.stream_id,
           frame.oversized ? absl::ResourceExhaustedError("the answer is longer than ttrpc carries")
                           : DecodeResponse(frame.body));
  }
}

void LoopClient::Fail() {
  if (watch_ == 0) return;
  loop_.Remove(std::exchange(watch_, 0));
  socket_.Reset();
  const std::shared_ptr<bool> alive = alive_;
  while (*alive && !pending_.empty()) {
    Finish(pending_.begin()->first, absl::UnavailableError("the peer has closed the connection"));
  }
  if (!*alive || !on_close_) return;
  const std::function<void()> on_close = std::move(on_close_);
  on_close();
}

}  // namespace gantry::ttrpc
