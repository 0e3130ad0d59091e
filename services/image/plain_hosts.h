// Which hosts may be spoken to without TLS.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace gantry::image {

// Loopback and what the configuration lists. Thread-safe: never changes.
class PlainHosts {
 public:
  // Hosts ("name", "name:port") and networks ("10.0.0.0/8") beside 127.0.0.0/8, ::1 and localhost.
  explicit PlainHosts(std::vector<std::string> listed) : listed_(std::move(listed)) {}

  // `host` is "name", "name:port", "[::1]" or "[::1]:port".
  bool Allows(const std::string& host) const;

 private:
  const std::vector<std::string> listed_;
};

}  // namespace gantry::image
