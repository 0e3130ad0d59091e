#include "shim/process_input.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "lib/base/status.h"
#include "lib/sys/file.h"
#include "shim/copy_buffer.h"

namespace gantry::shim {
namespace {

constexpr size_t kMaxQueuedBytes = 64 << 10;

}  // namespace

ProcessInput::~ProcessInput() {
  *alive_ = false;
  loop_.Remove(source_watch_);
  loop_.Remove(target_watch_);
}

absl::Status ProcessInput::OpenSource(const std::string& path) {
  ASSIGN_OR_RETURN(source_, sys::Open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW));
  struct stat info;
  if (::fstat(source_.get(), &info) == 0 && S_ISFIFO(info.st_mode)) {
    ASSIGN_OR_RETURN(source_hold_, sys::Open(path, O_WRONLY | O_NONBLOCK | O_NOFOLLOW));
  }
  return absl::OkStatus();
}

void ProcessInput::SetTarget(sys::UniqueFd target) {
  target_ = std::move(target);
  Flush();
}

void ProcessInput::Begin() {
  begun_ = true;
  WatchSource();
}

// A regular file is always ready and cannot be watched: it is read round by round.
void ProcessInput::WatchSource() {
  if (!begun_ || !source_.ok() || source_watch_ != 0) return;
  absl::StatusOr<sys::EventLoop::Watch> watch =
      loop_.Add(source_.get(), EPOLLIN, [this](uint32_t) { OnReadable(); });
  if (watch.ok()) {
    source_watch_ = *watch;
    return;
  }
  loop_.Post([this, alive = alive_] {
    if (*alive && source_.ok()) OnReadable();
  });
}

void ProcessInput::OnReadable() {
  if (full()) {
    loop_.Remove(std::exchange(source_watch_, 0));
    return;
  }
  const ssize_t got = ::read(source_.get(), copy_buffer, sizeof copy_buffer);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got > 0) {
    Write(absl::string_view(copy_buffer, static_cast<size_t>(got)));
    if (!full()) WatchSource();
    return;
  }
  loop_.Remove(std::exchange(source_watch_, 0));
  source_.Reset();
  Close();
}

void ProcessInput::Write(absl::string_view bytes) {
  if (!target_.ok() && begun_) return;  // The program has closed it, or has none.
  queue_.append(bytes.data(), bytes.size());
  Flush();
}

bool ProcessInput::full() const { return queue_.size() >= kMaxQueuedBytes; }

void ProcessInput::Close() {
  source_hold_.Reset();
  if (source_.ok() || terminal_) return;
  closing_ = true;
  Flush();
}

void ProcessInput::Drop() {
  loop_.Remove(std::exchange(source_watch_, 0));
  loop_.Remove(std::exchange(target_watch_, 0));
  source_.Reset();
  source_hold_.Reset();
  target_.Reset();
  queue_.clear();
}

void ProcessInput::Flush() {
  if (!target_.ok()) return;  // A terminal that is not there yet.
  const bool was_full = full();
  size_t sent = 0;
  while (sent < queue_.size()) {
    const ssize_t count = ::write(target_.get(), queue_.data() + sent, queue_.size() - sent);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count <= 0) {
      // The program does not read any more: what comes is thrown away.
      sent = queue_.size();
      closing_ = true;
      break;
    }
    sent += static_cast<size_t>(count);
  }
  if (sent == queue_.size()) {
    std::string().swap(queue_);
  } else {
    queue_.erase(0, sent);
  }
  if (queue_.empty()) {
    loop_.Remove(std::exchange(target_watch_, 0));
    if (closing_ && !terminal_) target_.Reset();
  } else if (target_watch_ == 0) {
    absl::StatusOr<sys::EventLoop::Watch> watch =
        loop_.Add(target_.get(), EPOLLOUT, [this](uint32_t) { Flush(); });
    if (watch.ok()) target_watch_ = *watch;
  }
  if (was_full && !full()) {
    on_room_();
    WatchSource();
  }
}

}  // namespace gantry::shim
