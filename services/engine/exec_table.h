// The programs started in a container beside its own.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace gantry::engine {

// An exec is added when its program runs, ends once, and is then remembered for a while, so that a
// late WaitExec still learns its code: the newest 100 that ended. Thread-safe.
class ExecTable {
 public:
  using Callback = std::function<void(absl::StatusOr<int32_t> exit_code)>;

  void Add(const std::string& exec_id);
  void End(const std::string& exec_id, int32_t exit_code);
  void Forget(const std::string& exec_id);  // It never ran.

  // Those that run: "ExecIDs" of inspect.
  std::vector<std::string> Running() const;

  // Errors: NotFound "No such exec instance: X".
  absl::Status CheckKnown(const std::string& exec_id) const;

  // Calls back once with the exit code, now or later, or with NotFound. Ticket 0: called already.
  uint64_t Wait(const std::string& exec_id, Callback callback);
  void CancelWait(uint64_t ticket);

  // Completes all waits: with this code those of programs that did not get to tell theirs (they
  // died with the container), with Cancelled when the engine stops.
  void EndAll(int32_t exit_code);
  void CancelAllWaits();

 private:
  struct Exec {
    bool ended = false;
    int32_t exit_code = 0;
    std::map<uint64_t, Callback> waiters;
  };

  mutable absl::Mutex mutex_;
  uint64_t last_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, Exec> execs_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> ended_ ABSL_GUARDED_BY(mutex_);  // Oldest first.
};

}  // namespace gantry::engine
