// gRPC over HTTP/2 (the "PROTOCOL-HTTP2" document of gRPC), client side: unary calls and streams in
// either direction, one call at a time per channel. It exists because a command's own start is part
// of its latency: gRPC's C++ library takes 3 ms to come up, this 0.1 ms (docs/performance.md).
//
//   ASSIGN_OR_RETURN(std::unique_ptr<Channel> channel,
//   Channel::Connect("/run/gantry/engine.sock"));
//   RETURN_IF_ERROR(channel->Unary("/gantry.engine.v1.Containers/List", request, &response,
//                                  absl::Seconds(10)));
//
// Not here, since no local hop needs it: TLS, compression, retries, several calls at once.
#pragma once

#include <google/protobuf/message_lite.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ctl/wire/connection.h"
#include "ctl/wire/hpack.h"
#include "ctl/wire/transport.h"

namespace gantry::wire {

// Largest message we accept.
inline constexpr size_t kMaxMessageBytes = 64 << 20;

class Call;

// Thread-compatible.
class Channel {
 public:
  // Errors: as ConnectSocket.
  static absl::StatusOr<std::unique_ptr<Channel>> Connect(const std::string& socket_path);

  explicit Channel(std::unique_ptr<Transport> transport) : connection_(std::move(transport)) {}

  // A header that goes with every call from now on.
  void AddMetadata(absl::string_view name, absl::string_view value);

  // One request, one answer. `method` is "/package.Service/Method". Errors: what the service said;
  // DeadlineExceeded; Unavailable — the connection broke.
  absl::Status Unary(absl::string_view method, const google::protobuf::MessageLite& request,
                     google::protobuf::MessageLite* response, absl::Duration timeout);

  // A call whose messages are sent and received one by one. At most one may live at a time, and the
  // channel must outlive it. Infinite `timeout`: no deadline.
  absl::StatusOr<std::unique_ptr<Call>> Open(absl::string_view method, absl::Duration timeout);

 private:
  friend class Call;
  Connection connection_;
  std::vector<Header> metadata_;
};

// One call. Destroying it before its end cancels it. Thread-compatible.
class Call {
 public:
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call();

  // Sends a message, waiting for the peer to take it. With `last`, no more follow.
  // OK although nobody read it when the peer has ended the call already: Read then tells why.
  absl::Status Write(const google::protobuf::MessageLite& message, bool last);

  // The next message: true with a message, false at the successful end. Errors: the call's status.
  absl::StatusOr<bool> Read(google::protobuf::MessageLite* message);

 private:
  friend class Channel;
  Call(Channel& channel, const Deadline& deadline) : channel_(channel), deadline_(deadline) {}

  absl::StatusOr<bool> TakeMessage(google::protobuf::MessageLite* message);
  absl::Status OnHeaders(const std::vector<Header>& headers, bool end);

  Channel& channel_;
  Deadline deadline_;
  std::string buffer_;  // Bytes of messages, from begin_.
  size_t begin_ = 0;
  bool saw_headers_ = false;
  bool ended_ = false;
  absl::Status status_ = absl::UnknownError("the service ended the call without a status");
};

// "10S", "250m": the header grpc-timeout, at most eight digits and rounded up.
std::string FormatTimeout(absl::Duration timeout);

// The text of a grpc-message header: %XX is a byte; a malformed escape stays as it is.
std::string DecodePercent(absl::string_view text);

}  // namespace gantry::wire
