#include "lib/sys/socket.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"

namespace gantry::sys {
namespace {

constexpr size_t kMaxDescriptors = 16;

absl::StatusOr<sockaddr_un> Address(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(absl::StrCat("socket path '", path, "' has ", path.size(),
                                                   " bytes; it must have 1 to ",
                                                   sizeof address.sun_path - 1));
  }
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

absl::StatusOr<UniqueFd> NewSocket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.ok()) return ErrnoError(errno, "make a unix socket");
  return fd;
}

// Whether nobody is behind a connection any more, or in a moment: a process that was killed while
// it started a child lives on in that until it executes its program, and so does its listening
// socket. A server that lives says something soon, or at least goes on living.
bool HangsUp(const UniqueFd& connection) {
  constexpr int kPatienceMs = 1000;
  pollfd ready = {connection.get(), POLLIN, 0};
  int result;
  do {
    result = ::poll(&ready, 1, kPatienceMs);
  } while (result < 0 && errno == EINTR);
  return result == 1 && (ready.revents & (POLLHUP | POLLERR)) != 0;
}

int Bind(const UniqueFd& fd, const sockaddr_un& address) {
  // The socket is born with its final mode: no moment in which others could connect.
  const mode_t saved = ::umask(0177);
  const int result = ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::umask(saved);
  errno = error;
  return result;
}

}  // namespace

absl::StatusOr<UniqueFd> ListenUnix(const std::string& path, int backlog) {
  ASSIGN_OR_RETURN(sockaddr_un address, Address(path));
  ASSIGN_OR_RETURN(UniqueFd fd, NewSocket());
  if (Bind(fd, address) != 0) {
    if (errno != EADDRINUSE) return ErrnoError(errno, absl::StrCat("bind '", path, "'"));
    if (absl::StatusOr<UniqueFd> peer = ConnectUnix(path); peer.ok() && !HangsUp(*peer)) {
      return absl::AlreadyExistsError(absl::StrCat("'", path, "' is served by another process"));
    }
    ::unlink(path.c_str());
    if (Bind(fd, address) != 0) return ErrnoError(errno, absl::StrCat("bind '", path, "'"));
  }
  if (::listen(fd.get(), backlog) != 0)
    return ErrnoError(errno, absl::StrCat("listen on '", path, "'"));
  return fd;
}

absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path) {
  ASSIGN_OR_RETURN(sockaddr_un address, Address(path));
  ASSIGN_OR_RETURN(UniqueFd fd, NewSocket());
  int result;
  do {
    result = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } while (result != 0 && errno == EINTR);
  if (result != 0) return ErrnoError(errno, absl::StrCat("connect to '", path, "'"));
  return fd;
}

absl::StatusOr<UniqueFd> Accept(const UniqueFd& listener, int flags) {
  int fd;
  do {
    fd = ::accept4(listener.get(), nullptr, nullptr, flags | SOCK_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return ErrnoError(errno, "accept a connection");
  return UniqueFd(fd);
}

absl::StatusOr<PeerCredentials> GetPeerCredentials(int socket) {
  ucred credentials = {};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return ErrnoError(errno, "read the peer's credentials");
  }
  return PeerCredentials{credentials.pid, credentials.uid, credentials.gid};
}

absl::Status SendDescriptors(const UniqueFd& socket, absl::string_view bytes,
                             const std::vector<int>& descriptors) {
  if (bytes.empty() || descriptors.size() > kMaxDescriptors) {
    return absl::InvalidArgumentError("send descriptors: no bytes, or more than 16 descriptors");
  }
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxDescriptors)] = {};
  iovec vector = {const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
    memcpy(CMSG_DATA(header), descriptors.data(), sizeof(int) * descriptors.size());
  }
  ssize_t sent;
  do {
    sent = ::sendmsg(socket.get(), &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return ErrnoError(errno, "send descriptors");
  if (static_cast<size_t>(sent) != bytes.size()) {
    return absl::UnavailableError("send descriptors: the message was cut short");
  }
  return absl::OkStatus();
}

absl::StatusOr<ReceivedMessage> ReceiveDescriptors(const UniqueFd& socket, size_t max_bytes) {
  ReceivedMessage received;
  received.bytes.resize(max_bytes);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxDescriptors)] = {};
  iovec vector = {received.bytes.data(), max_bytes};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t count;
  do {
    count = ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return ErrnoError(errno, "receive descriptors");
  received.bytes.resize(static_cast<size_t>(count));
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t descriptors = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < descriptors; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      received.descriptors.emplace_back(fd);
    }
  }
  return received;
}

}  // namespace gantry::sys
