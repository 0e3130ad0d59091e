#include "shim/stdio_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/file.h"

namespace gantry::shim {

absl::StatusOr<std::unique_ptr<StdioSink>> StdioSink::Open(sys::EventLoop& loop,
                                                           const StdioUri& uri) {
  auto sink = std::unique_ptr<StdioSink>(new StdioSink(loop));
  if (uri.kind == StdioUri::Kind::kFile) {
    const size_t slash = uri.path.rfind('/');
    if (slash > 0) RETURN_IF_ERROR(sys::MakeDirectories(uri.path.substr(0, slash), 0755));
    ASSIGN_OR_RETURN(
        sink->fd_,
        sys::Open(uri.path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK, 0644));
    return sink;
  }
  ASSIGN_OR_RETURN(sink->fd_, sys::Open(uri.path, O_RDWR | O_NOFOLLOW | O_NONBLOCK));
  struct stat info;
  if (::fstat(sink->fd_.get(), &info) != 0) {
    return sys::ErrnoError(errno, absl::StrCat("look at '", uri.path, "'"));
  }
  sink->pipe_like_ = S_ISFIFO(info.st_mode);
  if (!sink->pipe_like_ && !S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("stdio '", uri.path, "' is neither a fifo nor a file"));
  }
  if (!sink->pipe_like_) ::lseek(sink->fd_.get(), 0, SEEK_END);
  return sink;
}

absl::StatusOr<std::unique_ptr<StdioSink>> StdioSink::FromPipe(sys::EventLoop& loop,
                                                               sys::UniqueFd fd) {
  RETURN_IF_ERROR(sys::SetNonBlocking(fd));
  auto sink = std::unique_ptr<StdioSink>(new StdioSink(loop));
  sink->fd_ = std::move(fd);
  sink->pipe_like_ = true;
  return sink;
}

StdioSink::~StdioSink() { loop_.Remove(watch_); }

size_t StdioSink::WriteSome(absl::string_view bytes, bool* failed) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t count = ::write(fd_.get(), bytes.data() + sent, bytes.size() - sent);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      *failed = !(count < 0 && errno == EAGAIN && pipe_like_);
      break;
    }
    sent += static_cast<size_t>(count);
  }
  return sent;
}

void StdioSink::Write(absl::string_view bytes) {
  bool failed = false;
  bytes.remove_prefix(WriteSome(bytes, &failed));
  if (failed || bytes.empty()) return;
  left_.assign(bytes.data(), bytes.size());
  WaitForRoom();
}

void StdioSink::WaitForRoom() {
  if (watch_ != 0) return;
  absl::StatusOr<sys::EventLoop::Watch> watch =
      loop_.Add(fd_.get(), EPOLLOUT, [this](uint32_t) { OnWritable(); });
  if (watch.ok()) watch_ = *watch;
}

void StdioSink::OnWritable() {
  bool failed = false;
  const size_t sent = WriteSome(left_, &failed);
  if (!failed && sent < left_.size()) {
    left_.erase(0, sent);
    return;
  }
  std::string().swap(left_);
  loop_.Remove(std::exchange(watch_, 0));
  const std::function<void()> on_room = on_room_;  // It may destroy this object.
  if (on_room) on_room();
}

}  // namespace gantry::shim
