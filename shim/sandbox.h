// A sandbox: what the containers of a pod share, served by the shim they run in.
// Source: contracts/containerd 5.12 and messages.tsv (containerd.runtime.sandbox.v1).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "lib/sys/event_loop.h"
#include "shim/container.h"
#include "shim/reaper.h"
#include "shim/wire.h"

namespace gantry::shim {

// Life cycle: created → ready → not ready (it was stopped, or its process ended) → removed.
//
// When the sandbox's bundle configures a process (a pause program that holds namespaces), it runs
// as a container of its own, of which no task is known and no event told. Else the sandbox is the
// shim alone: its pid is the shim's, and it is ready until it is stopped.
//
// Single-threaded.
class Sandbox {
 public:
  enum class State { kCreated, kReady, kNotReady };
  struct Status {
    State state = State::kCreated;
    int pid = 0;
    absl::Time created_at;
    absl::Time exited_at = absl::InfinitePast();  // Not yet.
  };
  using Done = Container::Done;
  template <typename T>
  using DoneWith = Container::DoneWith<T>;

  Sandbox(sys::EventLoop& loop, Reaper& reaper, std::string ns, std::string seccomp_cache,
          CreateSandboxRequest request);
  ~Sandbox();
  Sandbox(const Sandbox&) = delete;
  Sandbox& operator=(const Sandbox&) = delete;

  // On failure nothing is left, and the object is to be dropped.
  void Create(Done done);
  // Errors: FailedPrecondition — it was started before.
  void Start(DoneWith<Status> done);
  // Asks its process to end (SIGTERM), and kills it after `patience`; at once with none. Fine when
  // it is stopped. `done` when it has ended.
  void Stop(absl::Duration patience, Done done);
  // `done` when it has ended, now if it has. Without a process the exit code is 0.
  void Wait(DoneWith<ProcessExit> done);
  // Kills what runs and takes the process's traces away. The object is to be dropped then.
  void Remove(Done done);

  const std::string& id() const { return request_.id; }
  const CreateSandboxRequest& request() const { return request_; }
  const Status& status() const { return status_; }
  // Of its process; nullptr when it has none.
  const cgroup::Cgroup* cgroup() const;

 private:
  void OnEnd(const absl::StatusOr<ProcessExit>& exit);

  sys::EventLoop& loop_;
  const CreateSandboxRequest request_;
  std::unique_ptr<Container> process_;
  Status status_;
  ProcessExit exit_;
  sys::EventLoop::Timer kill_timer_ = 0;
  std::vector<DoneWith<ProcessExit>> waiters_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace gantry::shim
