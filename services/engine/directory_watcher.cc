#include "services/engine/directory_watcher.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"

namespace gantry::engine {
namespace {

constexpr uint32_t kEvents = IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF;

}  // namespace

absl::StatusOr<std::unique_ptr<DirectoryWatcher>> DirectoryWatcher::Create() {
  sys::UniqueFd inotify(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!inotify.ok()) return sys::ErrnoError(errno, "make an inotify instance");
  sys::UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop.ok()) return sys::ErrnoError(errno, "make an eventfd");
  return absl::WrapUnique(new DirectoryWatcher(std::move(inotify), std::move(stop)));
}

DirectoryWatcher::DirectoryWatcher(sys::UniqueFd inotify, sys::UniqueFd stop)
    : inotify_(std::move(inotify)), stop_(std::move(stop)), thread_([this] { Loop(); }) {}

DirectoryWatcher::~DirectoryWatcher() {
  const uint64_t one = 1;
  (void)!::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

absl::StatusOr<uint64_t> DirectoryWatcher::Watch(const std::string& directory, Callback callback) {
  absl::MutexLock lock(&mutex_);
  // The same descriptor as before when the directory is watched already.
  const int watch = ::inotify_add_watch(inotify_.get(), directory.c_str(), kEvents | IN_ONLYDIR);
  if (watch < 0) return sys::ErrnoError(errno, absl::StrCat("watch '", directory, "'"));
  Watched& watched = watched_[watch];
  watched.directory = directory;
  watched.callbacks.emplace(++last_ticket_, std::move(callback));
  return last_ticket_;
}

void DirectoryWatcher::Cancel(uint64_t ticket) {
  Callback dropped;  // Destroyed after the lock is released.
  absl::MutexLock lock(&mutex_);
  for (auto at = watched_.begin(); at != watched_.end(); ++at) {
    auto found = at->second.callbacks.find(ticket);
    if (found == at->second.callbacks.end()) continue;
    dropped = std::move(found->second);
    at->second.callbacks.erase(found);
    if (at->second.callbacks.empty()) {
      ::inotify_rm_watch(inotify_.get(), at->first);
      watched_.erase(at);
    }
    return;
  }
}

void DirectoryWatcher::Loop() {
  alignas(inotify_event) char buffer[64 << 10];
  while (true) {
    pollfd ready[2] = {{inotify_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(ready, 2, -1) < 0 && errno != EINTR) return;
    if (ready[1].revents != 0) return;
    const ssize_t got = ::read(inotify_.get(), buffer, sizeof buffer);
    if (got <= 0) continue;
    std::vector<Callback> callbacks;
    {
      absl::MutexLock lock(&mutex_);
      const auto take = [&](std::map<int, Watched>::iterator at)
                            ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                              for (auto& [ticket, callback] : at->second.callbacks) {
                                callbacks.push_back(std::move(callback));
                              }
                              ::inotify_rm_watch(inotify_.get(), at->first);
                              return watched_.erase(at);
                            };
      for (ssize_t at = 0; at < got;) {
        const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
        at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
        if ((event->mask & IN_Q_OVERFLOW) != 0) {
          // Events were lost: everybody looks for himself.
          for (auto each = watched_.begin(); each != watched_.end();) each = take(each);
        } else if (auto found = watched_.find(event->wd); found != watched_.end()) {
          take(found);
        }
      }
    }
    for (Callback& callback : callbacks) callback();
  }
}

}  // namespace gantry::engine
