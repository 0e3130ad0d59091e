// How processes end: the order of their ends, the records of them, who waits for them.
#include <signal.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "shim/container.h"

namespace gantry::shim {

void Container::OnChildExit(const std::string& exec_id, const ChildExit& exit) {
  if (exec_id.empty()) {
    if (init_.starting) {
      init_.held_exit = exit;
    } else {
      OnInitReaped(exit);
    }
    return;
  }
  const auto found = execs_.find(exec_id);
  if (found == execs_.end()) return;
  Process& process = *found->second;
  if (process.status == TaskStatus::kStopped)
    return;  // Could not be set up, and was killed for it.
  RecordExit(process, exit);
  publish_(TaskExit(request_.id, exec_id, process.pid, process.exit.code, process.exit.time));
  process.io->OnExit(process.exit, /*wait_for_eof=*/false);
  AnswerWaiters(process);
  if (pending_init_exit_.has_value() && !HasRunningExecs()) FinishInitExit();
}

void Container::OnInitReaped(const ChildExit& exit) {
  init_reaped_ = true;
  pending_init_exit_ = exit;
  const bool kill_rest = !runtime_->has_own_pid_namespace();
  if (kill_rest) {
    // Without a pid namespace of its own nothing ends the others; they end with init all the same.
    if (const absl::Status status = runtime_->cgroup().KillAll(); !status.ok()) {
      log::Warning("could not kill the processes left by init", {{"status", status}});
    }
  }
  if (!HasRunningExecs()) FinishInitExit();
}

void Container::FinishInitExit() {
  const ChildExit exit = *std::exchange(pending_init_exit_, std::nullopt);
  oom_.Look();  // The event of a kill comes before the exit it caused.
  RecordExit(init_, exit);
  (void)FAILPOINT("shim.exit.before_publish");
  publish_(TaskExit(request_.id, request_.id, init_.pid, init_.exit.code, init_.exit.time));
  init_.io->OnExit(init_.exit, /*wait_for_eof=*/true);
  AnswerWaiters(init_);
}

void Container::RecordExit(Process& process, const ChildExit& exit) {
  process.exit.code = exit.status.code;
  process.exit.signal = exit.status.signal;
  process.exit.time = exit.time;
  process.exit.reason = exit.status.signal == 0                             ? "exited"
                        : exit.status.signal == SIGKILL && oom_.kills() > 0 ? "oom"
                                                                            : "signalled";
  process.status = TaskStatus::kStopped;
  ExitRecord record;
  record.pid = process.pid;
  record.code = exit.status.code;
  record.signal = exit.status.signal;
  record.time = exit.time;
  record.reason = process.exit.reason;
  record.oom_kills = oom_.kills();
  absl::Status status = FAILPOINT("shim.exit.before_record");
  if (status.ok()) {
    status = WriteExitRecord(ExitRecordPath(request_.bundle, process.exec_id), record);
  }
  if (!status.ok()) log::Warning("could not record an exit", {{"status", status}});
}

void Container::AnswerWaiters(Process& process) {
  std::vector<DoneWith<ProcessExit>> waiters;
  waiters.swap(process.waiters);
  const ProcessExit exit = ExitOf(process);
  for (const DoneWith<ProcessExit>& waiter : waiters) waiter(exit);
}

void Container::Wait(const std::string& exec_id, DoneWith<ProcessExit> done) {
  absl::StatusOr<Process*> found = Find(exec_id);
  if (!found.ok()) {
    done(found.status());
  } else if ((*found)->status == TaskStatus::kStopped) {
    done(ExitOf(**found));
  } else {
    (*found)->waiters.push_back(std::move(done));
  }
}

}  // namespace gantry::shim
