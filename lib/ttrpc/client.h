// Calls over ttrpc. Client is for programs with threads; LoopClient is for one event loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/unique_fd.h"
#include "lib/ttrpc/frame.h"

namespace gantry::ttrpc {

// Called once with the answer's payload, or why there is none: the peer's status, DeadlineExceeded,
// or Unavailable when the connection ended first.
using Answer = std::function<void(absl::StatusOr<std::string> payload)>;

// A connection shared by any number of threads, with any number of calls under way. All clients of
// a process share one background thread, which reads answers and keeps deadlines; a thousand open
// Wait calls cost no threads. Destroying a Client closes its connection: calls under way end with
// Cancelled, `on_close` is not called, and no callback runs after the destructor returned.
//
// Thread-safe. Must not be destroyed from one of its own callbacks.
class Client {
 public:
  // `path` of a unix socket, with or without "unix://". `on_close` runs once on the background
  // thread when the peer closes the connection (a shim died) or breaks the protocol. Errors:
  // NotFound, Unavailable — nobody listens there.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const std::string& path,
                                                         std::function<void()> on_close = nullptr);
  // On a connected stream socket.
  static absl::StatusOr<std::unique_ptr<Client>> FromSocket(
      sys::UniqueFd socket, std::function<void()> on_close = nullptr);
  ~Client();

  // One call; blocks until the answer or for `timeout`, which also travels to the server.
  // `metadata` names the caller's namespace: {{"containerd-namespace-ttrpc", "default"}}.
  absl::StatusOr<std::string> Call(absl::string_view service, absl::string_view method,
                                   absl::string_view payload, const Metadata& metadata,
                                   absl::Duration timeout);

  // The same without blocking: `answer` runs on the background thread (or here, when the request
  // could not be sent) and must not block. InfiniteDuration: no deadline.
  void CallAsync(absl::string_view service, absl::string_view method, absl::string_view payload,
                 const Metadata& metadata, absl::Duration timeout, Answer answer);

  bool connected() const;

 private:
  struct State;
  explicit Client(std::shared_ptr<State> state) : state_(std::move(state)) {}
  // Shared with the background thread, which may be reading while the Client is destroyed.
  std::shared_ptr<State> state_;
};

// A connection used from the thread of one event loop. Single-threaded.
class LoopClient {
 public:
  // `on_close` may destroy the client.
  static absl::StatusOr<std::unique_ptr<LoopClient>> Connect(sys::EventLoop& loop,
                                                             const std::string& path,
                                                             std::function<void()> on_close);
  ~LoopClient();

  // Errors (through `answer`, maybe before this returns): as for Client.
  void Call(absl::string_view service, absl::string_view method, absl::string_view payload,
            const Metadata& metadata, absl::Duration timeout, Answer answer);

 private:
  struct Pending {
    Answer answer;
    sys::EventLoop::Timer timer = 0;
  };
  LoopClient(sys::EventLoop& loop, std::function<void()> on_close)
      : loop_(loop), on_close_(std::move(on_close)) {}
  void OnEvents(uint32_t events);
  void Finish(uint32_t stream, absl::StatusOr<std::string> payload);
  bool Flush();
  void Fail();

  sys::EventLoop& loop_;
  std::function<void()> on_close_;
  sys::UniqueFd socket_;
  sys::EventLoop::Watch watch_ = 0;
  FrameReader reader_;
  std::string out_;
  uint32_t next_stream_ = 1;
  std::map<uint32_t, Pending> pending_;
  // Tells a running callback that this object is gone.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// The path in "unix:///run/x.sock"; other text unchanged.
std::string SocketPath(absl::string_view address);

}  // namespace gantry::ttrpc
