// One container of the shim: its state machine, its processes, the order of its events.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lib/cgroup/cgroup.h"
#include "lib/sys/event_loop.h"
#include "lib/sys/unique_fd.h"
#include "shim/events.h"
#include "shim/exit_record.h"
#include "shim/oci_runtime.h"
#include "shim/oom_monitor.h"
#include "shim/operation_queue.h"
#include "shim/process_io.h"
#include "shim/reaper.h"
#include "shim/wire.h"

namespace gantry::shim {

// What a State answer needs of one process.
struct ProcessState {
  std::string id, exec_id, bundle;
  int pid = 0;
  TaskStatus status = TaskStatus::kUnknown;
  Stdio stdio;
  int exit_code = 0;
  absl::Time exited_at = absl::InfinitePast();  // Not yet.
};

// What Delete and Wait answer.
struct ProcessExit {
  int pid = 0;
  int code = 0;
  absl::Time time = absl::InfinitePast();
};

// State machine of init: created → running ⇄ paused → stopped → deleted; created → stopped and
// created → deleted are allowed. Operations that change it run one after the other; State and Wait
// are answered meanwhile.
//
// Order kept (containerd's contract, section 5.6): create < start < exit < delete, exec-added <
// exec-started < its exit, the exit of init is the last one, an exit that comes while its start is
// under way is held until the start event is queued, and the state changes before its event is
// queued.
//
// Single-threaded. Destroying a container ends what is left of it only in memory.
//
// Its parts, one duty each: container_create.cc, container_start.cc, container_exit.cc,
// container_delete.cc; container.cc has what can be asked of it while it runs.
class Container {
 public:
  using EventSink = std::function<void(const Event& event)>;
  using Done = OciRuntime::DoneStatus;
  template <typename T>
  using DoneWith = OciRuntime::Done<T>;

  struct Started {
    int pid = 0;
    std::vector<StepTiming> timings;
  };

  Container(sys::EventLoop& loop, Reaper& reaper, std::string ns, std::string seccomp_cache,
            EventSink sink);
  ~Container();
  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;

  // Mounts, opens the streams, creates. On failure everything is undone and the object is to be
  // dropped; `done` may run before this returns.
  void Create(CreateTaskRequest request, DoneWith<Started> done);

  // exec_id empty: init.
  void Start(const std::string& exec_id, DoneWith<Started> done);
  void AddExec(ExecProcessRequest request, Done done);
  void Kill(const std::string& exec_id, int signal, bool all, Done done);
  void Pause(Done done);
  void Resume(Done done);
  void Update(const std::string& resources, Done done);
  // After an OK for init the container is to be dropped.
  void Delete(const std::string& exec_id, DoneWith<ProcessExit> done);
  void Wait(const std::string& exec_id, DoneWith<ProcessExit> done);
  // Kills init and all that runs with it, then deletes the container, which is to be dropped then.
  void End(DoneWith<ProcessExit> done);

  absl::StatusOr<ProcessState> State(const std::string& exec_id) const;
  absl::Status ResizePty(const std::string& exec_id, uint32_t width, uint32_t height);
  absl::Status CloseIo(const std::string& exec_id);
  absl::StatusOr<AttachHub*> Hub(const std::string& exec_id);
  absl::Status ReopenLogs();
  // Host pids and the exec they are the first process of ("" for others).
  absl::StatusOr<std::vector<std::pair<int, std::string>>> Pids() const;
  const cgroup::Cgroup* cgroup() const {
    return runtime_ == nullptr ? nullptr : &runtime_->cgroup();
  }

  const std::string& id() const { return request_.id; }
  int init_pid() const { return init_.pid; }

 private:
  struct Process {
    std::string exec_id;  // Empty: init.
    Stdio stdio;
    std::string spec;  // Of an exec, until it is started.
    std::unique_ptr<ProcessIo> io;
    int pid = 0;
    sys::UniqueFd pidfd;
    TaskStatus status = TaskStatus::kUnknown;
    bool starting = false;
    bool deleting = false;
    std::optional<ChildExit> held_exit;  // Came while it was being started.
    attach::Exit exit;
    std::vector<DoneWith<ProcessExit>> waiters;
  };

  absl::Status PrepareRoot();
  absl::Status OpenIo(Process& process);
  void OnCreated(absl::StatusOr<Spawned> spawned, const DoneWith<Started>& done);
  void UndoCreate();
  void StartInit(const DoneWith<Started>& done);
  void StartExec(const std::string& exec_id, const DoneWith<Started>& done);
  absl::Status AdoptPid(Process& process, Spawned spawned);
  void OnChildExit(const std::string& exec_id, const ChildExit& exit);
  void OnInitReaped(const ChildExit& exit);
  void FinishInitExit();
  void RecordExit(Process& process, const ChildExit& exit);
  void AnswerWaiters(Process& process);
  void DeleteInit(const DoneWith<ProcessExit>& done);
  void DeleteExec(const std::string& exec_id, const DoneWith<ProcessExit>& done);
  void DrainIo(Process& process, std::function<void()> then);
  absl::StatusOr<Process*> Find(const std::string& exec_id);
  bool HasRunningExecs() const;
  ProcessExit ExitOf(const Process& process) const;

  sys::EventLoop& loop_;
  Reaper& reaper_;
  const std::string ns_;
  const std::string seccomp_cache_;
  EventSink publish_;

  CreateTaskRequest request_;
  RuncOptions options_;
  std::string rootfs_;
  bool mounted_ = false;
  std::unique_ptr<OciRuntime> runtime_;
  Process init_;
  std::map<std::string, std::unique_ptr<Process>> execs_;
  bool init_reaped_ = false;                    // From then on no exec starts.
  std::optional<ChildExit> pending_init_exit_;  // Waits for the execs.

  OomMonitor oom_;
  OperationQueue operations_;  // Those that change the state.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace gantry::shim
