// Tells when something happens to the files of a directory: one inotify instance and one thread for
// all who follow logs.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/sys/unique_fd.h"

namespace gantry::engine {

// Thread-safe.
class DirectoryWatcher {
 public:
  using Callback = std::function<void()>;

  static absl::StatusOr<std::unique_ptr<DirectoryWatcher>> Create();
  ~DirectoryWatcher();

  // Calls back once, on the watcher's thread, after the next change of a file in `directory`
  // (written, made, renamed, removed). Callbacks must be short. Errors: NotFound — no such
  // directory; ResourceExhausted — the user's inotify limits.
  absl::StatusOr<uint64_t> Watch(const std::string& directory, Callback callback);

  // The callback is not called any more, or is being called.
  void Cancel(uint64_t ticket);

 private:
  struct Watched {
    std::string directory;
    std::map<uint64_t, Callback> callbacks;
  };

  DirectoryWatcher(sys::UniqueFd inotify, sys::UniqueFd stop);
  void Loop();

  const sys::UniqueFd inotify_;
  const sys::UniqueFd stop_;
  absl::Mutex mutex_;
  uint64_t last_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<int, Watched> watched_ ABSL_GUARDED_BY(mutex_);  // By watch descriptor.
  std::thread thread_;
};

}  // namespace gantry::engine
