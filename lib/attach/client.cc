#include "lib/attach/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/socket.h"

namespace gantry::attach {
namespace {

constexpr size_t kReadBytes = 64 << 10;

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const std::string& address,
                                                        const Hello& hello,
                                                        absl::Duration timeout) {
  absl::string_view path = address;
  absl::ConsumePrefix(&path, "unix://");
  ASSIGN_OR_RETURN(sys::UniqueFd socket, sys::ConnectUnix(std::string(path)));
  if (::fcntl(socket.get(), F_SETFL, O_NONBLOCK) != 0) {
    return sys::ErrnoError(errno, "make a socket non-blocking");
  }
  auto client = std::unique_ptr<Client>(new Client(std::move(socket)));
  client->out_ = kMagic;
  AppendHello(hello, &client->out_);
  client->Flush();
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    Frame frame;
    ASSIGN_OR_RETURN(const bool got, client->parser_.Next(&frame));
    if (got && frame.type == FrameType::kOk) {
      ASSIGN_OR_RETURN(client->accepted_, ParseAccepted(frame.payload));
      return client;
    }
    if (got && frame.type == FrameType::kError) return ParseError(frame.payload);
    if (got) return absl::InvalidArgumentError("the shim answered hello with something else");
    if (client->ended_) {
      return absl::UnavailableError(
          absl::StrCat("attach to '", address, "': the shim closed the connection"));
    }
    RETURN_IF_ERROR(client->Poll(client->wants_write() ? POLLIN | POLLOUT : POLLIN, deadline));
    RETURN_IF_ERROR(client->OnReady());
  }
}

absl::Status Client::Poll(short events, absl::Time deadline) {
  pollfd watched = {socket_.get(), events, 0};
  const int millis = deadline == absl::InfiniteFuture()
                         ? -1
                         : static_cast<int>(std::clamp<int64_t>(
                               absl::ToInt64Milliseconds(
                                   absl::Ceil(deadline - absl::Now(), absl::Milliseconds(1))),
                               0, 1 << 30));
  const int ready = ::poll(&watched, 1, millis);
  if (ready < 0 && errno != EINTR) return sys::ErrnoError(errno, "wait for the shim");
  if (ready == 0) return absl::DeadlineExceededError("attach: nothing from the shim in time");
  return absl::OkStatus();
}

absl::Status Client::OnReady() {
  Flush();
  if (ended_) return absl::OkStatus();
  char buffer[kReadBytes];
  const ssize_t got = ::recv(socket_.get(), buffer, sizeof buffer, 0);
  if (got > 0) {
    parser_.Append(absl::string_view(buffer, static_cast<size_t>(got)));
  } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
    ended_ = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Client::Next(Event* event) {
  if (finished_) return false;
  Frame frame;
  ASSIGN_OR_RETURN(const bool got, parser_.Next(&frame));
  if (!got) {
    if (!ended_) return false;
    event->kind = Event::Kind::kClosed;
    finished_ = true;
    return true;
  }
  event->bytes = frame.payload;
  switch (frame.type) {
    case FrameType::kStdout:
      event->kind = Event::Kind::kStdout;
      return true;
    case FrameType::kStderr:
      event->kind = Event::Kind::kStderr;
      return true;
    case FrameType::kLost: {
      event->kind = Event::Kind::kLost;
      ASSIGN_OR_RETURN(event->lost_bytes, ParseLost(frame.payload));
      return true;
    }
    case FrameType::kExit: {
      event->kind = Event::Kind::kExit;
      ASSIGN_OR_RETURN(event->exit, ParseExit(frame.payload));
      finished_ = true;
      return true;
    }
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("the shim sent a frame of type ", static_cast<int>(frame.type)));
  }
}

absl::Status Client::WaitNext(Event* event, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    ASSIGN_OR_RETURN(const bool got, Next(event));
    if (got) return absl::OkStatus();
    if (finished_) return absl::FailedPreconditionError("attach: the connection has ended");
    RETURN_IF_ERROR(Poll(wants_write() ? POLLIN | POLLOUT : POLLIN, deadline));
    RETURN_IF_ERROR(OnReady());
  }
}

void Client::Flush() {
  size_t sent = 0;
  while (sent < out_.size()) {
    const ssize_t count =
        ::send(socket_.get(), out_.data() + sent, out_.size() - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count < 0) {
      // What the shim sent before it went can still be read.
      sent = out_.size();
      break;
    }
    sent += static_cast<size_t>(count);
  }
  out_.erase(0, sent);
}

void Client::SendStdin(absl::string_view bytes) {
  AppendBytes(FrameType::kStdin, bytes, &out_);
  Flush();
}

void Client::CloseStdin() {
  AppendFrame(FrameType::kCloseStdin, "", &out_);
  Flush();
}

void Client::Resize(uint16_t columns, uint16_t rows) {
  AppendResize(columns, rows, &out_);
  Flush();
}

void Client::Detach(absl::Duration timeout) {
  AppendFrame(FrameType::kDetach, "", &out_);
  const absl::Time deadline = absl::Now() + timeout;
  for (Flush(); wants_write() && Poll(POLLOUT, deadline).ok(); Flush()) {
  }
  ::shutdown(socket_.get(), SHUT_RDWR);
  ended_ = true;
}

}  // namespace gantry::attach
