#include "services/task/child_reaper.h"

#include <signal.h>
#include <sys/epoll.h>

#include <utility>

#include "lib/log/log.h"

namespace gantry::task {

ChildReaper::~ChildReaper() {
  loop_.Do([this] {
    for (auto& [id, waiting] : waiting_) {
      loop_.loop().Remove(waiting.watch);
      loop_.loop().Cancel(waiting.timer);
      waiting.child.Release();
    }
    waiting_.clear();
  });
}

void ChildReaper::Take(sys::Child child, const std::string& name, absl::Duration patience,
                       std::function<void()> done) {
  auto taken = std::make_shared<Waiting>();
  taken->child = std::move(child);
  taken->name = name;
  taken->done = std::move(done);
  Watch(std::move(taken), patience);
}

void ChildReaper::Take(sys::UniqueFd pidfd, const std::string& name, absl::Duration patience,
                       std::function<void()> done) {
  auto taken = std::make_shared<Waiting>();
  taken->pidfd = std::move(pidfd);
  taken->name = name;
  taken->done = std::move(done);
  Watch(std::move(taken), patience);
}

// `taken` is shared, since the loop's work must be copyable.
void ChildReaper::Watch(std::shared_ptr<Waiting> taken, absl::Duration patience) {
  loop_.Post([this, taken = std::move(taken), patience] {
    const uint64_t id = next_id_++;
    Waiting& waiting = waiting_[id] = std::move(*taken);
    const int pidfd = waiting.pidfd.ok() ? waiting.pidfd.get() : waiting.child.pidfd().get();
    absl::StatusOr<sys::EventLoop::Watch> watch =
        loop_.loop().Add(pidfd, EPOLLIN, [this, id](uint32_t) { Finish(id, false); });
    if (!watch.ok()) return Finish(id, true);
    waiting.watch = *watch;
    waiting.timer = loop_.loop().After(patience, [this, id] { Finish(id, true); });
  });
}

void ChildReaper::Finish(uint64_t id, bool kill) {
  auto found = waiting_.find(id);
  if (found == waiting_.end()) return;
  Waiting waiting = std::move(found->second);
  waiting_.erase(found);
  loop_.loop().Remove(waiting.watch);
  loop_.loop().Cancel(waiting.timer);
  if (kill) {
    log::Warning("process did not end by itself and is killed", {{"process", waiting.name}});
  }
  if (kill && waiting.pidfd.ok()) (void)sys::SignalPidfd(waiting.pidfd, SIGKILL);
  waiting.child.KillAndReap();  // Only reaps what has ended.
  waiting.done();
}

}  // namespace gantry::task
