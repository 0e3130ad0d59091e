#include "runtime/cli/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::runtime {
namespace {

constexpr int kBarrierMilliseconds = 30000;

absl::Status SendTo(const std::string& path, const std::string& text, int fd) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError("NOTIFY_SOCKET: the path is longer than 107 bytes");
  }
  memcpy(address.sun_path, path.data(), path.size());
  if (path[0] == '@') address.sun_path[0] = '\0';  // systemd's own may be an abstract one.
  sys::UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  iovec part = {const_cast<char*>(text.data()), text.size()};
  msghdr message = {};
  message.msg_name = &address;
  message.msg_namelen = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  if (!socket.ok() || ::sendmsg(socket.get(), &message, MSG_NOSIGNAL) < 0) {
    return sys::ErrnoError(errno, "tell NOTIFY_SOCKET that the container is ready");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Notify::Begin(const std::string& state_root, const std::string& id) {
  const char* host = ::getenv("NOTIFY_SOCKET");
  const std::string directory = absl::StrCat(state_root, "/", id, "/notify");
  if (host == nullptr || host[0] == '\0' || !sys::Exists(directory)) return absl::OkStatus();
  host_ = host;
  socket_.Reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSIGN_OR_RETURN(sys::UniqueFd place, sys::OpenPath(directory));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path = absl::StrCat("/proc/self/fd/", place.get(), "/notify.sock");
  memcpy(address.sun_path, path.data(), path.size());
  if (!socket_.ok() ||
      ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return sys::ErrnoError(errno, "bind the notify socket");
  }
  // Any user of the container may be the one who is ready.
  if (::fchmodat(place.get(), "notify.sock", 0777, 0) != 0)
    return sys::ErrnoError(errno, "open up the notify socket");
  return absl::OkStatus();
}

absl::Status Notify::Await(const Container& container) {
  if (!socket_.ok()) return absl::OkStatus();
  for (;;) {
    pollfd polls[] = {{socket_.get(), POLLIN, 0}, {container.pidfd().get(), POLLIN, 0}};
    if (::poll(polls, 2, -1) < 0 && errno != EINTR)
      return sys::ErrnoError(errno, "wait for READY=");
    if (polls[0].revents != 0) {
      char bytes[4096];
      const ssize_t size = ::recv(socket_.get(), bytes, sizeof bytes, 0);
      const std::string text(bytes, static_cast<size_t>(size > 0 ? size : 0));
      for (absl::string_view line : absl::StrSplit(text, '\n')) {
        if (!absl::StartsWith(line, "READY=")) continue;
        RETURN_IF_ERROR(SendTo(host_, absl::StrCat(line, "\nMAINPID=", container.pid()), -1));
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) return sys::ErrnoError(errno, "make a pipe");
        sys::UniqueFd reader(ends[0]), writer(ends[1]);
        RETURN_IF_ERROR(SendTo(host_, "BARRIER=1", writer.get()));
        writer.Reset();
        pollfd barrier = {reader.get(), POLLIN, 0};
        (void)::poll(&barrier, 1, kBarrierMilliseconds);
        return absl::OkStatus();
      }
      continue;
    }
    if (polls[1].revents != 0) return absl::OkStatus();
  }
}

}  // namespace gantry::runtime
