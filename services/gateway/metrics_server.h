// The one HTTP address of the suite: GET /metrics answers the metrics of every process.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace gantry::gateway {

// Serves while it lives, on threads of CivetWeb's (chosen over own code: an HTTP parser is no place
// to be original in). Thread-compatible.
class MetricsServer {
 public:
  // `address` is "host:port"; `page` makes the text, and is called for every request on a server
  // thread. Errors: InvalidArgument — the address; Unavailable — it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& address,
                                                              std::function<std::string()> page);
  ~MetricsServer();

  // The port that was bound: of use when the address said 0.
  int port() const;

 private:
  struct Impl;
  explicit MetricsServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gantry::gateway
