#include "runtime/init/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "absl/strings/str_cat.h"
#include "lib/sys/errno.h"

namespace gantry::runtime {
namespace {

constexpr size_t kMaxPayloadBytes = 60 << 10;

}  // namespace

absl::Status SendMessage(int socket, Message kind, absl::string_view payload, int fd) {
  if (payload.size() > kMaxPayloadBytes) payload = payload.substr(0, kMaxPayloadBytes);
  char tag = static_cast<char>(kind);
  iovec parts[2] = {{&tag, 1}, {const_cast<char*>(payload.data()), payload.size()}};
  msghdr message = {};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
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
  ssize_t sent;
  do {
    sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0)
    return absl::UnavailableError(absl::StrCat("the other side is gone: ", strerror(errno)));
  return absl::OkStatus();
}

absl::StatusOr<Received> ReceiveMessage(int socket) {
  std::string bytes(kMaxPayloadBytes + 1, '\0');
  iovec part = {bytes.data(), bytes.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {};
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t size;
  do {
    size = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size < 0) return sys::ErrnoError(errno, "receive from the new process");
  if (size == 0) return absl::UnavailableError("the other side is gone");
  Received received;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      received.fd.Reset(fd);
    }
  }
  received.kind = static_cast<Message>(bytes[0]);
  received.payload = bytes.substr(1, static_cast<size_t>(size) - 1);
  return received;
}

std::string EncodeStatus(const absl::Status& status) {
  return absl::StrCat(static_cast<int>(status.code()), " ", status.message());
}

absl::Status DecodeStatus(absl::string_view payload) {
  int code = 0;
  size_t at = 0;
  while (at < payload.size() && payload[at] >= '0' && payload[at] <= '9' && at < 3) {
    code = code * 10 + (payload[at++] - '0');
  }
  if (code == 0 || code > 16) code = static_cast<int>(absl::StatusCode::kUnknown);
  if (at < payload.size()) ++at;
  return absl::Status(static_cast<absl::StatusCode>(code), payload.substr(at));
}

}  // namespace gantry::runtime
