// Accepts connections for a gRPC server, so that the socket is born with its mode, stale ones are
// replaced and every peer is checked (SECURITY-RULES 32), none of which gRPC's own listener does.
#pragma once

#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "lib/sys/unique_fd.h"

namespace gantry::rpc {

// Owns a listening unix socket and the thread that accepts on it. Thread-compatible.
class Listener {
 public:
  // Listens on `path`. Errors: AlreadyExists — another process serves there.
  static absl::StatusOr<std::unique_ptr<Listener>> Open(const std::string& path);
  ~Listener();

  // Hands every accepted connection of root, or of our own user, to `server`. Call once.
  void Start(grpc::Server& server);

  // Stops accepting and removes the socket. Connections already handed over live on.
  void Stop();

 private:
  Listener(std::string path, sys::UniqueFd listener, sys::UniqueFd wake);
  void Run(grpc::Server& server);

  const std::string path_;
  sys::UniqueFd listener_;
  sys::UniqueFd wake_;
  std::thread thread_;
};

}  // namespace gantry::rpc
