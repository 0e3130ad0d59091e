// Unix sockets with paths (never abstract ones, SECURITY-RULES 32).
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/sys/unique_fd.h"

namespace gantry::sys {

// Listens on `path` with mode 0600. A stale socket (nobody answers) is replaced.
// Errors: AlreadyExists — somebody serves there; InvalidArgument — path over 107 bytes.
absl::StatusOr<UniqueFd> ListenUnix(const std::string& path, int backlog = 128);

// Connects. Errors: NotFound, Unavailable (nobody listens).
absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path);

// accept4(2), close-on-exec; `flags` may hold SOCK_NONBLOCK.
absl::StatusOr<UniqueFd> Accept(const UniqueFd& listener, int flags = 0);

// Who is at the other end (SO_PEERCRED).
struct PeerCredentials {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};
absl::StatusOr<PeerCredentials> GetPeerCredentials(int socket);

// One message with descriptors (SCM_RIGHTS); `bytes` must not be empty.
absl::Status SendDescriptors(const UniqueFd& socket, absl::string_view bytes,
                             const std::vector<int>& descriptors);
struct ReceivedMessage {
  std::string bytes;
  std::vector<UniqueFd> descriptors;
};
// At most `max_bytes` and 16 descriptors. Empty bytes: the peer closed.
absl::StatusOr<ReceivedMessage> ReceiveDescriptors(const UniqueFd& socket, size_t max_bytes);

}  // namespace gantry::sys
