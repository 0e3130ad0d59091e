// A ttrpc server on an event loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/unique_fd.h"
#include "lib/ttrpc/frame.h"

namespace gantry::ttrpc {

class Server;

// The one answer to a call: send it now or keep it for later (Wait keeps it for the life of a
// container). Nothing is sent when the connection is gone or the answer was sent; a Responder that
// is dropped leaves the caller waiting for its deadline. Must not outlive its server. Copyable.
class Responder {
 public:
  void Reply(const absl::Status& status, absl::string_view payload = "") const;
  void Reply(const absl::StatusOr<std::string>& payload) const;

 private:
  friend class Server;
  Responder(Server* server, uint64_t connection, uint32_t stream)
      : server_(server), connection_(connection), stream_(stream) {}
  Server* server_;
  uint64_t connection_;
  uint32_t stream_;
};

// Serves many connections, each with many calls under way; answers leave in the order they are
// ready. Only callers with our own uid and gid are served (SO_PEERCRED). Streams are refused with
// Unimplemented. A client that does not read its answers is cut off at kMaxQueuedBytes.
//
// Single-threaded.
class Server {
 public:
  static constexpr size_t kMaxConnections = 256;
  static constexpr size_t kMaxQueuedBytes = 16 << 20;

  // The request's views are valid during the call only.
  using Handler = std::function<void(const Request& request, Responder responder)>;
  // Takes over an accepted connection whose first byte is not a ttrpc length (they begin with
  // zero).
  using ForeignHandler = std::function<void(sys::UniqueFd connection)>;

  Server(sys::EventLoop& loop, Handler handler);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Accepts on `listener`, a non-blocking listening unix socket.
  absl::Status Listen(sys::UniqueFd listener);
  // Connections that speak something else on the same socket; without it they are closed.
  void SetForeignHandler(ForeignHandler handler) { foreign_ = std::move(handler); }

  // Serves one accepted, non-blocking connection.
  void AddConnection(sys::UniqueFd socket);

  // For servers with more than kMaxConnections callers: a supervisor has one for each shim.
  void SetMaxConnections(size_t count) { max_connections_ = count; }

  void StopListening();
  // True when every answer given so far has left.
  bool flushed() const;
  size_t connection_count() const { return connections_.size(); }

 private:
  friend class Responder;
  struct Connection {
    sys::UniqueFd socket;
    sys::EventLoop::Watch watch = 0;
    bool sniffed = false;  // The first byte was seen and belongs to ttrpc.
    FrameReader reader;
    uint32_t last_stream = 0;
    std::string out;  // Not yet taken by the kernel.
    bool writing = false;
  };

  void Accept();
  void OnEvents(uint64_t id, uint32_t events);
  bool Sniff(uint64_t id, Connection& connection);
  void Read(uint64_t id);
  void Dispatch(uint64_t id, const FrameReader::Frame& frame);
  void Send(uint64_t id, std::string frame);
  void Flush(uint64_t id);
  void Close(uint64_t id);

  sys::EventLoop& loop_;
  Handler handler_;
  ForeignHandler foreign_;
  sys::UniqueFd listener_;
  sys::EventLoop::Watch listen_watch_ = 0;
  std::map<uint64_t, std::unique_ptr<Connection>> connections_;
  uint64_t next_connection_ = 1;
  size_t max_connections_ = kMaxConnections;
};

}  // namespace gantry::ttrpc
