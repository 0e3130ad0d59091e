// The byte stream under an HTTP/2 connection, and deadlines on it.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace gantry::wire {

// A moment of the monotonic clock after which waiting is over, or never.
class Deadline {
 public:
  static Deadline Never() { return Deadline(); }
  // absl::InfiniteDuration() is Never().
  static Deadline After(absl::Duration timeout);

  bool never() const { return !at_.has_value(); }
  // Not below zero. Infinite when never().
  absl::Duration Left() const;
  // For poll(2): -1 is for ever; rounded up, so that 0 means it has passed.
  int PollTimeoutMilliseconds() const;

 private:
  Deadline() = default;
  std::optional<std::chrono::steady_clock::time_point> at_;
};

// Thread-compatible.
class Transport {
 public:
  virtual ~Transport() = default;

  // At least one byte into `buffer`; 0: the peer closed. Errors: DeadlineExceeded, Unavailable.
  virtual absl::StatusOr<size_t> Read(char* buffer, size_t size, const Deadline& deadline) = 0;

  // All of `bytes`. Errors: DeadlineExceeded, Unavailable.
  virtual absl::Status Write(absl::string_view bytes, const Deadline& deadline) = 0;
};

// Connects to the unix socket at `path`. Errors: NotFound — no such socket; Unavailable — nobody
// listens there; PermissionDenied; InvalidArgument — the path is over 107 bytes.
absl::StatusOr<std::unique_ptr<Transport>> ConnectSocket(const std::string& path);

}  // namespace gantry::wire
