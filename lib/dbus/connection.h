// A blocking client connection to a D-Bus bus, or straight to a peer such as systemd's private
// socket (the same protocol without a bus in between).
//
//   ASSIGN_OR_RETURN(dbus::Connection systemd,
//                    dbus::Connection::Open("/run/systemd/private", dbus::Peer::kDirect,
//                    deadline));
//   ASSIGN_OR_RETURN(dbus::Message reply, systemd.Call({.destination = …, .member = …}, {…}));
//
// One thread, one caller; everything ends by the deadline of Open. Move-only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lib/dbus/message.h"
#include "lib/sys/unique_fd.h"

namespace gantry::dbus {

enum class Peer {
  kBus,     // A message bus: says Hello first.
  kDirect,  // The other end answers itself.
};

struct MethodCall {
  std::string destination;  // Ignored by a direct peer.
  std::string path, interface, member;
};

class Connection {
 public:
  // Connects and authenticates as the user that the kernel says we are (EXTERNAL): in a user
  // namespace that is the user outside, whose number we need not know. Errors: NotFound,
  // Unavailable — nobody there; PermissionDenied — refused; DeadlineExceeded.
  static absl::StatusOr<Connection> Open(const std::string& socket_path, Peer peer,
                                         absl::Time deadline);

  // Sends the call and waits for its reply; signals that come meanwhile are kept for
  // WaitForSignal. An error reply becomes a status whose message begins with the error's name.
  // Codes: NotFound — NoSuchUnit, UnknownObject …; AlreadyExists — UnitExists; PermissionDenied —
  // AccessDenied, InteractiveAuthorizationRequired; InvalidArgument — InvalidArgs, unknown property
  // or method; Unavailable — the other end is gone, or says it is busy; FailedPrecondition — other.
  absl::StatusOr<Message> Call(const MethodCall& call, const std::vector<Value>& arguments);

  // The first signal that `wanted` says yes to, kept ones first; others are dropped.
  absl::StatusOr<Message> WaitForSignal(const std::function<bool(const Message&)>& wanted);

 private:
  Connection(sys::UniqueFd socket, absl::Time deadline)
      : socket_(std::move(socket)), deadline_(deadline) {}
  absl::Status Authenticate();
  absl::StatusOr<std::string> ReadLine();
  absl::Status Send(absl::string_view bytes);
  absl::Status WaitFor(short events);
  absl::Status ReceiveMore();
  absl::StatusOr<Message> Receive();

  sys::UniqueFd socket_;
  absl::Time deadline_;
  std::string received_;
  std::deque<Message> signals_;
  uint32_t last_serial_ = 0;
};

}  // namespace gantry::dbus
