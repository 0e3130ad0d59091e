#include "snapshotter/trash.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"

namespace gantry::snapshotter {

Trash::Trash(std::string directory, std::function<void(size_t)> on_change)
    : directory_(std::move(directory)),
      on_change_(std::move(on_change)),
      thread_([this] { Run(); }) {}

Trash::~Trash() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

absl::Status Trash::Resume() {
  ASSIGN_OR_RETURN(std::vector<std::string> names, sys::ListDirectory(directory_));
  for (const std::string& name : names) Enqueue(absl::StrCat(directory_, "/", name));
  return absl::OkStatus();
}

absl::Status Trash::Put(const std::string& path) {
  // A name of its own: two trees with the same last component may wait side by side.
  std::string target = absl::StrCat(directory_, "/", RandomHex(8));
  RETURN_IF_ERROR(FAILPOINT("snapshotter.trash.before_rename"));
  RETURN_IF_ERROR(sys::Rename(path, target));
  Enqueue(std::move(target));
  return absl::OkStatus();
}

void Trash::Enqueue(std::string path) {
  size_t waiting = 0;
  {
    absl::MutexLock lock(&mutex_);
    queue_.push_back(std::move(path));
    waiting = queue_.size();
  }
  if (on_change_) on_change_(waiting);
}

absl::Status Trash::Drain(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  for (std::string& path : failed_) queue_.push_back(std::move(path));
  failed_.clear();
  last_error_ = absl::OkStatus();
  const auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stop_ || (queue_.empty() && !busy_);
  };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&idle), timeout)) {
    return absl::DeadlineExceededError(absl::StrCat("clean up '", directory_, "': ", queue_.size(),
                                                    " removed snapshots are still being deleted"));
  }
  return last_error_;
}

size_t Trash::size() const {
  absl::MutexLock lock(&mutex_);
  return queue_.size() + failed_.size() + (busy_ ? 1 : 0);
}

void Trash::Run() {
  const auto has_work = [this]()
                            ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stop_ || !queue_.empty(); };
  for (;;) {
    std::string path;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&has_work));
      if (stop_) return;
      path = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
    }
    absl::Status removed = FAILPOINT("snapshotter.trash.before_delete");
    if (removed.ok()) removed = sys::RemoveTree(path);
    if (!removed.ok()) {
      log::Warning("removed snapshot could not be deleted; Cleanup or the next start tries again",
                   {{"path", path}, {"error", removed}});
    }
    size_t waiting = 0;
    {
      absl::MutexLock lock(&mutex_);
      busy_ = false;
      if (!removed.ok()) {
        failed_.push_back(std::move(path));
        last_error_ = removed;
      }
      waiting = queue_.size() + failed_.size();
    }
    if (on_change_) on_change_(waiting);
  }
}

}  // namespace gantry::snapshotter
