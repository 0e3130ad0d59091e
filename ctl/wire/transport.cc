#include "ctl/wire/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <climits>
#include <utility>

#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/socket.h"
#include "lib/sys/unique_fd.h"

namespace gantry::wire {
namespace {

class SocketTransport final : public Transport {
 public:
  explicit SocketTransport(sys::UniqueFd socket) : socket_(std::move(socket)) {}

  absl::StatusOr<size_t> Read(char* buffer, size_t size, const Deadline& deadline) override {
    while (true) {
      const ssize_t count = ::recv(socket_.get(), buffer, size, MSG_DONTWAIT);
      if (count >= 0) return static_cast<size_t>(count);
      if (errno == EAGAIN) {
        RETURN_IF_ERROR(Await(POLLIN, deadline));
      } else if (errno != EINTR) {
        return sys::ErrnoError(errno, "read an answer");
      }
    }
  }

  absl::Status Write(absl::string_view bytes, const Deadline& deadline) override {
    while (!bytes.empty()) {
      const ssize_t count =
          ::send(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (count >= 0) {
        bytes.remove_prefix(static_cast<size_t>(count));
      } else if (errno == EAGAIN) {
        RETURN_IF_ERROR(Await(POLLOUT, deadline));
      } else if (errno != EINTR) {
        return sys::ErrnoError(errno, "send a request");
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Await(short events, const Deadline& deadline) {
    pollfd waiting = {socket_.get(), events, 0};
    const int ready = ::poll(&waiting, 1, deadline.PollTimeoutMilliseconds());
    if (ready > 0 || (ready < 0 && errno == EINTR)) return absl::OkStatus();
    if (ready == 0) return absl::DeadlineExceededError("no answer in time");
    return sys::ErrnoError(errno, "wait for an answer");
  }

  sys::UniqueFd socket_;
};

}  // namespace

Deadline Deadline::After(absl::Duration timeout) {
  Deadline deadline;
  // A century is for ever, and keeps the sum inside the clock's range.
  if (timeout < absl::Hours(24 * 365 * 100)) {
    deadline.at_ = std::chrono::steady_clock::now() +
                   absl::ToChronoNanoseconds(std::max(timeout, absl::ZeroDuration()));
  }
  return deadline;
}

absl::Duration Deadline::Left() const {
  if (!at_) return absl::InfiniteDuration();
  return std::max(absl::FromChrono(*at_ - std::chrono::steady_clock::now()), absl::ZeroDuration());
}

int Deadline::PollTimeoutMilliseconds() const {
  if (!at_) return -1;
  const int64_t left = absl::ToInt64Milliseconds(absl::Ceil(Left(), absl::Milliseconds(1)));
  return static_cast<int>(std::min<int64_t>(left, INT_MAX));
}

absl::StatusOr<std::unique_ptr<Transport>> ConnectSocket(const std::string& path) {
  ASSIGN_OR_RETURN(sys::UniqueFd socket, sys::ConnectUnix(path));
  return std::make_unique<SocketTransport>(std::move(socket));
}

}  // namespace gantry::wire
