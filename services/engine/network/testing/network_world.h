// A host of its own for tests that need root: private network and mount namespaces for the whole
// test program, and a neighbour outside, reached by an uplink.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lib/netlink/address.h"
#include "lib/sys/temp_dir.h"
#include "lib/sys/unique_fd.h"
#include "services/engine/network/network.h"

namespace gantry::network {

// The host is 198.51.100.1, the neighbour 198.51.100.2; the host's default route leads there.
// Made once, before any thread; lasts as long as the program.
class NetworkWorld {
 public:
  static constexpr char kHostIp[] = "198.51.100.1";
  static constexpr char kOutsideIp[] = "198.51.100.2";

  // Null without root. The first call moves the calling thread, and with it all threads made later.
  static NetworkWorld* Get();

  const sys::UniqueFd& outside() const { return outside_; }
  const std::string& directory() const { return directory_.path(); }

 private:
  explicit NetworkWorld(sys::TempDir directory) : directory_(std::move(directory)) {}
  absl::Status Build();

  sys::TempDir directory_;
  sys::UniqueFd outside_;
};

// Where a socket is opened: in a container, outside, or (null) on the host.
absl::StatusOr<sys::UniqueFd> OpenSocket(const sys::UniqueFd* where, Protocol protocol);
// How long a call on the socket waits; five seconds unless told.
absl::Status SetPatience(const sys::UniqueFd& socket, absl::Duration patience);
// A socket bound to `ip`:`port`, listening if TCP.
absl::StatusOr<sys::UniqueFd> Listen(const sys::UniqueFd* where, Protocol protocol,
                                     const std::string& ip, uint16_t port);
// Connects (for UDP: sets the peer). Errors: what connect said, DeadlineExceeded.
absl::StatusOr<sys::UniqueFd> Dial(const sys::UniqueFd* where, Protocol protocol,
                                   const std::string& ip, uint16_t port,
                                   absl::Duration patience = absl::Seconds(5));

// Sends a word from `client` to `server` and back: the address the server saw, or why it did not
// arrive. `server` is what Listen returned, `client` what Dial returned.
absl::StatusOr<std::string> Exchange(Protocol protocol, const sys::UniqueFd& client,
                                     const sys::UniqueFd& server);

// Dial and Exchange in one.
absl::StatusOr<std::string> Reach(const sys::UniqueFd* where, Protocol protocol,
                                  const std::string& ip, uint16_t port,
                                  const sys::UniqueFd& server);

}  // namespace gantry::network
