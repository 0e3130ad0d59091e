// The client's end of an attach connection, for a program that polls several descriptors.
//
//   ASSIGN_OR_RETURN(auto client, attach::Client::Connect(address, hello));
//   … take what Next() has already: output may have come with the answer to the hello …
//   for (;;) {
//     poll {client->fd(), POLLIN | (client->wants_write() ? POLLOUT : 0)},
//          {0, client->wants_write() ? 0 : POLLIN} …
//     RETURN_IF_ERROR(client->OnReady());            // fd() is ready, whatever for
//     for (attach::Event event;;) {
//       ASSIGN_OR_RETURN(bool got, client->Next(&event));
//       if (!got) break;
//       …
//     }
//     … SendStdin what was read from 0 …
//   }
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lib/attach/protocol.h"
#include "lib/sys/unique_fd.h"

namespace gantry::attach {

struct Event {
  enum class Kind {
    kStdout,
    kStderr,
    kLost,    // `lost_bytes` of output are missing here.
    kExit,    // The process has ended; the last event.
    kClosed,  // The connection ended without that: detached, or the shim died.
  };
  Kind kind;
  absl::string_view bytes;  // Valid until the next call on the client.
  uint64_t lost_bytes = 0;
  Exit exit;
};

// One connection to one process. Nothing blocks but Connect, WaitNext and Close; the socket's
// buffer plus what is queued here (wants_write()) holds what was sent. Thread-compatible.
class Client {
 public:
  // `address`: path of the shim's socket, with or without "unix://". Says hello and waits for the
  // answer. Errors: NotFound, Unavailable — no shim there; what the shim answered (NotFound — no
  // such process); DeadlineExceeded.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(
      const std::string& address, const Hello& hello, absl::Duration timeout = absl::Seconds(10));

  const Accepted& accepted() const { return accepted_; }
  int fd() const { return socket_.get(); }

  // Something is queued: poll for POLLOUT too, and take no more input for SendStdin meanwhile.
  bool wants_write() const { return !out_.empty(); }

  // Reads and writes what is possible now. Errors: InvalidArgument — the peer speaks something
  // else.
  absl::Status OnReady();

  // The next event at hand; false: none now.
  absl::StatusOr<bool> Next(Event* event);

  // The same, waiting. Errors: DeadlineExceeded.
  absl::Status WaitNext(Event* event, absl::Duration timeout = absl::InfiniteDuration());

  // Queue and send. After the end of the connection they do nothing: Next() tells that.
  void SendStdin(absl::string_view bytes);
  void CloseStdin();
  void Resize(uint16_t columns, uint16_t rows);
  // Leaves the process to itself; waits for at most `timeout` until that is said.
  void Detach(absl::Duration timeout = absl::Seconds(1));

 private:
  explicit Client(sys::UniqueFd socket) : socket_(std::move(socket)) {}
  absl::Status Poll(short events, absl::Time deadline);
  void Flush();

  sys::UniqueFd socket_;
  Accepted accepted_;
  FrameParser parser_;
  std::string out_;
  bool ended_ = false;     // The peer closed, or the connection broke.
  bool finished_ = false;  // kExit or kClosed was handed out.
};

}  // namespace gantry::attach
