// One container as the engine knows it: what it is, how it is, and who waits for it. Knows no other
// process: Engine makes things happen and tells the container, which checks that they may.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "containerd/types/types.pb.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/engine/v1/record.pb.h"
#include "services/engine/container_state.h"
#include "services/engine/exec_table.h"

namespace gantry::engine {

google::protobuf::Timestamp ToProto(absl::Time time);
absl::Time FromProto(const google::protobuf::Timestamp& time);  // Unset: InfinitePast.

// What a parked Wait is told.
struct WaitResult {
  absl::Status status;  // Cancelled: the engine stops.
  int32_t exit_code = 0;
  std::string error;
  std::vector<v1::StepTiming> timings;  // Of the removal.
};

// Facts of the run that is, or that ended last. A reboot ends all of them.
struct Run {
  uint64_t number = 0;  // 1, 2 … since the engine started; tells an old exit from a new one.
  int64_t pid = 0;
  std::string shim_socket;
  absl::Time started_at = absl::InfinitePast();
  std::vector<v1::StepTiming> timings;
  v1::NetworkSettings network;
  std::string network_mode;  // Empty: the network of another container.
};

// Thread-safe.
//
// Operations that change a container (start, the handling of its exit, removal, pause, rename,
// reading files of a stopped one) exclude each other by Operation. It is held over calls to other
// processes, unlike the mutex, which guards the members for moments only; so a stuck container
// holds up nobody but its own callers.
class Container : public std::enable_shared_from_this<Container> {
 public:
  using WaitCallback = std::function<void(const WaitResult&)>;

  // Its own state is not started: whoever loads a record with phase STARTED adopts the task or says
  // that it ended.
  explicit Container(v1::ContainerRecord record);

  const std::string& id() const { return definition_.id(); }
  const v1::ContainerDefinition& definition() const { return definition_; }
  const v1::ContainerConfig& config() const { return definition_.config(); }
  std::string name() const;
  void SetName(const std::string& name);

  // --- Looking ---

  State state() const;
  Run run() const;
  v1::LastRun last_run() const;
  v1::ContainerState StateProto() const;
  v1::ContainerRecord ToRecord() const;

  ExecTable& execs() { return execs_; }
  const ExecTable& execs() const { return execs_; }

  // Whether an operation is under way.
  bool busy() const;

  // --- Operations ---

  // The right to change the container; given back by its destructor. Move-only.
  class Operation {
   public:
    Operation(Operation&& other) noexcept : container_(std::move(other.container_)) {}
    Operation& operator=(Operation&& other) noexcept {
      End();
      container_ = std::move(other.container_);
      return *this;
    }
    ~Operation() { End(); }
    void End();

   private:
    friend class Container;
    explicit Operation(std::shared_ptr<Container> container) : container_(std::move(container)) {}
    std::shared_ptr<Container> container_;
  };

  // Waits for the operation under way. `verb` is what this one does, for the error of the next.
  // Errors: DeadlineExceeded — still busy after `patience`; NotFound — removed meanwhile.
  absl::StatusOr<Operation> Begin(absl::string_view verb, absl::Duration patience);

  // --- Changes; the caller holds the Operation unless said otherwise ---

  // Errors, all of them: FailedPrecondition naming the state, and nothing is changed.
  absl::Status MarkRunning(Run run);
  absl::Status MarkPaused();
  absl::Status MarkUnpaused();
  absl::Status MarkRemoving();
  absl::Status MarkDead(const std::string& reason);

  // The run ended. `next` is kExited or kRestarting. Completes the waiters for the end of a run.
  absl::Status MarkEnded(int32_t exit_code, absl::Time at, State next);

  // A start that came to nothing: the state stays what it was (restarting becomes exited), the
  // reason and an exit code (125 … 127) are kept.
  void MarkStartFailed(int32_t exit_code, const std::string& reason);

  // exited → restarting: a restart by policy failed, and the policy wants another try.
  absl::Status BackToRestarting();

  // restarting → exited: a person stopped it while it waited.
  void GiveUpRestarting();

  // It is not in the index any more: completes all waiters, and tells them how long the steps of
  // the removal took. Begin fails from now on.
  void MarkRemoved(std::vector<v1::StepTiming> timings);

  // After a restart of the engine: the run that is going on (or whose end nobody has seen yet),
  // from any state.
  void AdoptRun(Run run, bool paused);

  // After a restart of the engine: the run that was recorded as begun is gone without a trace.
  // `next` is kExited or kRestarting.
  void MarkLost(int32_t exit_code, const std::string& reason, State next);

  // Number of the next run.
  uint64_t NextRunNumber();

  // A restart by policy is about to begin: counts it. A start by a person sets the count to 0 and
  // forgets that somebody stopped it.
  void CountRestart();
  void ResetRestarts();

  // No Operation needed: somebody asked for its end, so the policy must not restart it.
  void SetStoppedByUser();
  bool stopped_by_user() const;

  // No Operation needed: the kernel killed something of it for memory.
  void SetOomKilled();

  void SetShimSocket(const std::string& socket);
  void SetBootId(const std::string& boot_id);

  // Root file system mounts, kept from the create; nullopt: ask for them.
  std::optional<std::vector<containerd::types::Mount>> rootfs() const;
  void SetRootfs(std::vector<containerd::types::Mount> mounts);

  // Whether the run that ended still has things to be cleaned away: a task, an endpoint.
  bool needs_cleanup() const;
  void SetNeedsCleanup(bool needed);

  // Made with --rm, and not just being restarted by a person.
  bool goes_with_its_end() const;
  void SetKept(bool kept);

  // --- Restart back-off ---

  // How long to wait before the next restart: 100 ms, doubling, at most 1 min; from the start again
  // after a run of 10 s. `ran` is how long the run that ended was up.
  absl::Duration NextRestartDelay(absl::Duration ran);

  // --- Recording ---

  // One writer at a time writes the newest state. BeginRecording blocks while another one writes;
  // nullopt: what is recorded is new enough already. Every change above makes it too old.
  std::optional<v1::ContainerRecord> BeginRecording();
  void EndRecording(bool written);

  // Keeps everybody from recording while the records are written in another way (renamed, removed).
  // Blocks while a writer is at work; ended by EndRecording.
  void HoldRecording();

  // --- Waiting ---

  // Calls back once: now or later, on any thread, never under a lock. Returns a ticket for
  // CancelWait; 0: it was called already.
  uint64_t Wait(v1::WaitContainerRequest::Condition condition, WaitCallback callback);
  void CancelWait(uint64_t ticket);  // The callback is not called any more, or is being called.

  // Ends all waits with Cancelled, for a stop of the engine.
  void CancelAllWaits();

  // Calls back when the run that is now has been cleaned away (its logs are complete); at once when
  // there is none. Ticket as above.
  uint64_t WaitForLogsComplete(std::function<void()> callback);

 private:
  enum class WaitKind { kNotRunning, kNextExit, kRemoved, kLogsComplete };
  struct Waiter {
    uint64_t ticket;
    WaitKind kind;
    WaitCallback callback;
  };

  absl::Status Move(absl::string_view verb, State to) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Changed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { ++version_; }
  std::vector<Waiter> Take(std::initializer_list<WaitKind> kinds)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  WaitResult EndedResult() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Complete(std::vector<Waiter> waiters, const WaitResult& result);

  const v1::ContainerDefinition definition_;
  ExecTable execs_;

  mutable absl::Mutex mutex_;
  std::string name_ ABSL_GUARDED_BY(mutex_);
  State state_ ABSL_GUARDED_BY(mutex_) = State::kCreated;
  v1::LastRun last_run_ ABSL_GUARDED_BY(mutex_);
  Run run_ ABSL_GUARDED_BY(mutex_);
  uint64_t run_number_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<std::vector<containerd::types::Mount>> rootfs_ ABSL_GUARDED_BY(mutex_);
  bool needs_cleanup_ ABSL_GUARDED_BY(mutex_) = false;
  bool removed_ ABSL_GUARDED_BY(mutex_) = false;
  bool kept_ ABSL_GUARDED_BY(mutex_) = false;
  std::string busy_with_ ABSL_GUARDED_BY(mutex_);  // Verb of the operation; empty: none.
  absl::Duration next_delay_ ABSL_GUARDED_BY(mutex_);
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t recorded_version_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t recording_version_ ABSL_GUARDED_BY(mutex_) = 0;
  bool recording_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t last_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::engine
