#include "lib/dbus/connection.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"
#include "lib/sys/socket.h"

namespace gantry::dbus {
namespace {

constexpr size_t kReadBytes = 4096;
constexpr size_t kMaxLineBytes = 4096;  // Of the authentication.
// Signals that arrive while a call is answered: systemd tells direct peers about all its units.
constexpr size_t kMaxKeptSignals = 4096;

struct KnownError {
  absl::string_view suffix;
  absl::StatusCode code;
};
constexpr KnownError kKnownErrors[] = {
    {".NoSuchUnit", absl::StatusCode::kNotFound},
    {".UnknownObject", absl::StatusCode::kNotFound},
    {".ServiceUnknown", absl::StatusCode::kUnavailable},
    {".NameHasNoOwner", absl::StatusCode::kUnavailable},
    {".NoReply", absl::StatusCode::kUnavailable},
    {".Disconnected", absl::StatusCode::kUnavailable},
    {".UnitExists", absl::StatusCode::kAlreadyExists},
    {".AccessDenied", absl::StatusCode::kPermissionDenied},
    {".AuthFailed", absl::StatusCode::kPermissionDenied},
    {".InteractiveAuthorizationRequired", absl::StatusCode::kPermissionDenied},
    {".InvalidArgs", absl::StatusCode::kInvalidArgument},
    {".PropertyReadOnly", absl::StatusCode::kInvalidArgument},
    {".UnknownProperty", absl::StatusCode::kInvalidArgument},
    {".UnknownMethod", absl::StatusCode::kInvalidArgument},
    {".BadUnitSetting", absl::StatusCode::kInvalidArgument},
};

absl::Status FromErrorReply(const Message& reply) {
  std::string text;
  absl::StatusOr<std::vector<Value>> body = reply.Body();
  if (body.ok() && !body->empty() && (*body)[0].signature == "s") text = (*body)[0].text;
  const std::string message =
      absl::StrCat(EscapeForTerminal(reply.error_name), ": ", EscapeForTerminal(text));
  for (const KnownError& known : kKnownErrors) {
    if (absl::EndsWith(reply.error_name, known.suffix)) return absl::Status(known.code, message);
  }
  return absl::FailedPreconditionError(message);
}

absl::Status Closed() {
  return absl::UnavailableError("D-Bus: the other end closed the connection");
}

}  // namespace

absl::StatusOr<Connection> Connection::Open(const std::string& socket_path, Peer peer,
                                            absl::Time deadline) {
  RETURN_IF_ERROR(FAILPOINT("dbus.open.before_connect"));
  ASSIGN_OR_RETURN(sys::UniqueFd socket, sys::ConnectUnix(socket_path));
  Connection connection(std::move(socket), deadline);
  const std::string what = absl::StrCat("talk to D-Bus at '", EscapeForTerminal(socket_path), "'");
  RETURN_IF_ERROR(Annotate(connection.Authenticate(), what));
  if (peer == Peer::kBus) {
    absl::StatusOr<Message> hello = connection.Call({.destination = "org.freedesktop.DBus",
                                                     .path = "/org/freedesktop/DBus",
                                                     .interface = "org.freedesktop.DBus",
                                                     .member = "Hello"},
                                                    {});
    if (!hello.ok()) return Annotate(hello.status(), what);
  }
  return connection;
}

absl::Status Connection::WaitFor(short events) {
  for (;;) {
    const absl::Duration left = deadline_ - absl::Now();
    pollfd poll_fd = {socket_.get(), events, 0};
    const int64_t milliseconds = absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1)));
    const int timeout = static_cast<int>(std::clamp<int64_t>(milliseconds, 0, INT32_MAX));
    const int ready = ::poll(&poll_fd, 1, timeout);
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return sys::ErrnoError(errno, "D-Bus: wait for the other end");
    if (ready == 0) {
      return absl::DeadlineExceededError("D-Bus: the other end did not answer in time");
    }
  }
}

absl::Status Connection::Send(absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent =
        ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      RETURN_IF_ERROR(WaitFor(POLLOUT));
    } else if (errno != EINTR) {
      return errno == EPIPE ? Closed() : sys::ErrnoError(errno, "D-Bus: send");
    }
  }
  return absl::OkStatus();
}

absl::Status Connection::ReceiveMore() {
  for (;;) {
    RETURN_IF_ERROR(WaitFor(POLLIN));
    char bytes[kReadBytes];
    const ssize_t size = ::recv(socket_.get(), bytes, sizeof bytes, MSG_DONTWAIT);
    if (size > 0) {
      received_.append(bytes, static_cast<size_t>(size));
      return absl::OkStatus();
    }
    if (size == 0 || errno == ECONNRESET) return Closed();
    if (errno != EAGAIN && errno != EINTR) return sys::ErrnoError(errno, "D-Bus: receive");
  }
}

absl::StatusOr<std::string> Connection::ReadLine() {
  for (;;) {
    const size_t end = received_.find("\r\n");
    if (end != std::string::npos) {
      std::string line = received_.substr(0, end);
      received_.erase(0, end + 2);
      return line;
    }
    if (received_.size() > kMaxLineBytes) {
      return absl::InvalidArgumentError("D-Bus: a line of the authentication is too long");
    }
    RETURN_IF_ERROR(ReceiveMore());
  }
}

absl::Status Connection::Authenticate() {
  // The credentials are the socket's own; an empty identity stands for "whoever the kernel says".
  // All is said at once, as systemd's own clients do: a message that followed BEGIN closely could
  // be read along with it by systemd, and then lies there until the next one comes.
  static constexpr absl::string_view kWords("\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", 29);
  RETURN_IF_ERROR(Send(kWords));
  for (const char* wanted : {"DATA", "OK"}) {
    ASSIGN_OR_RETURN(const std::string line, ReadLine());
    if (absl::StartsWith(line, wanted)) continue;
    return absl::PermissionDeniedError(absl::StrCat(
        "D-Bus: authentication as the calling user was refused: '", EscapeForTerminal(line), "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Message> Connection::Receive() {
  while (received_.size() < kFixedHeaderBytes) RETURN_IF_ERROR(ReceiveMore());
  ASSIGN_OR_RETURN(const size_t length, MessageLength(received_));
  while (received_.size() < length) RETURN_IF_ERROR(ReceiveMore());
  absl::StatusOr<Message> message = ReadMessage(absl::string_view(received_).substr(0, length));
  received_.erase(0, length);
  return message;
}

absl::StatusOr<Message> Connection::Call(const MethodCall& call,
                                         const std::vector<Value>& arguments) {
  Message request;
  request.type = MessageType::kCall;
  request.serial = ++last_serial_;
  request.destination = call.destination;
  request.path = call.path;
  request.interface = call.interface;
  request.member = call.member;
  RETURN_IF_ERROR(Send(WriteMessage(request, arguments)));
  for (;;) {
    ASSIGN_OR_RETURN(Message message, Receive());
    if (message.type == MessageType::kSignal) {
      if (signals_.size() == kMaxKeptSignals) signals_.pop_front();
      signals_.push_back(std::move(message));
      continue;
    }
    if (message.reply_serial != request.serial) continue;
    if (message.type == MessageType::kReply) return message;
    if (message.type == MessageType::kError) return FromErrorReply(message);
  }
}

absl::StatusOr<Message> Connection::WaitForSignal(
    const std::function<bool(const Message&)>& wanted) {
  while (!signals_.empty()) {
    Message message = std::move(signals_.front());
    signals_.pop_front();
    if (wanted(message)) return message;
  }
  for (;;) {
    ASSIGN_OR_RETURN(Message message, Receive());
    if (message.type == MessageType::kSignal && wanted(message)) return message;
  }
}

}  // namespace gantry::dbus
