#include "ctl/console.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "ctl/terminal.h"

namespace gantry::ctl {
namespace {

constexpr size_t kBufferBytes = 64 << 10;
constexpr int kBrokenPipeExit = 128 + SIGPIPE;

}  // namespace

void Output::Write(absl::string_view text) {
  absl::StrAppend(&buffer_, text);
  if (fd_ >= 0 && buffer_.size() >= kBufferBytes) Flush();
}

void Output::Flush() {
  if (fd_ < 0) return;
  absl::string_view rest = buffer_;
  while (!rest.empty()) {
    const ssize_t count = ::write(fd_, rest.data(), rest.size());
    if (count >= 0) {
      rest.remove_prefix(static_cast<size_t>(count));
    } else if (errno == EAGAIN) {
      // Somebody who shares the descriptor made it non-blocking.
      pollfd waiting = {fd_, POLLOUT, 0};
      ::poll(&waiting, 1, -1);
    } else if (errno == EPIPE) {
      RestoreTerminal();
      ::_exit(kBrokenPipeExit);
    } else if (errno != EINTR) {
      break;  // Nowhere to say it.
    }
  }
  buffer_.clear();
}

bool Output::IsTerminal() const { return fd_ >= 0 && ::isatty(fd_) == 1; }

}  // namespace gantry::ctl
