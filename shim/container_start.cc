// What runs in a container: its init, and further processes (execs).
#include <signal.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/sys/process.h"
#include "shim/container.h"

namespace gantry::shim {
namespace {

constexpr size_t kMaxExecs = 4096;

}  // namespace

void Container::Start(const std::string& exec_id, DoneWith<Started> done) {
  operations_.Add({[this, exec_id, done] {
                     if (exec_id.empty()) {
                       StartInit(done);
                     } else {
                       StartExec(exec_id, done);
                     }
                   },
                   done});
}

void Container::StartInit(const DoneWith<Started>& done) {
  absl::Status status = FAILPOINT("shim.start.before");
  if (status.ok() && init_.status != TaskStatus::kCreated) {
    status = absl::FailedPreconditionError(absl::StrCat(
        "start container '", request_.id, "': it was started before; it can be started once"));
  }
  if (!status.ok()) {
    done(status);
    operations_.Finish();
    return;
  }
  init_.starting = true;
  const int64_t began = sys::MonotonicNanos();
  runtime_->Start([this, done, began](absl::StatusOr<std::vector<StepTiming>> timings) {
    init_.starting = false;
    if (timings.ok()) {
      init_.status = TaskStatus::kRunning;
      init_.io->OnStarted();
      publish_(TaskStart(request_.id, init_.pid));
      Started started;
      started.pid = init_.pid;
      started.timings = *std::move(timings);
      started.timings.push_back({"shim.start", (sys::MonotonicNanos() - began) / 1000});
      (void)FAILPOINT("shim.start.after");
      done(std::move(started));
    } else {
      done(timings.status());
    }
    if (init_.held_exit.has_value()) OnInitReaped(*std::exchange(init_.held_exit, std::nullopt));
    operations_.Finish();
  });
}

void Container::AddExec(ExecProcessRequest request, Done done) {
  absl::Status status = CheckIdentifier("exec id", request.exec_id);
  if (status.ok() && execs_.count(request.exec_id) > 0) {
    status = absl::AlreadyExistsError(absl::StrCat("process '", request.exec_id, "' of container '",
                                                   request_.id, "' exists already"));
  }
  if (status.ok() && (init_reaped_ || init_.status == TaskStatus::kStopped)) {
    status = absl::FailedPreconditionError(
        absl::StrCat("exec in container '", request_.id, "': it is stopped; start it first"));
  }
  if (status.ok() && init_.status == TaskStatus::kPaused) {
    status = absl::FailedPreconditionError(
        absl::StrCat("exec in container '", request_.id, "': it is paused; resume it first"));
  }
  if (status.ok() && execs_.size() >= kMaxExecs) {
    status = absl::ResourceExhaustedError(
        absl::StrCat("container '", request_.id, "' has ", kMaxExecs,
                     " processes that were not deleted; delete ended ones"));
  }
  if (!status.ok()) {
    done(status);
    return;
  }
  auto process = std::make_unique<Process>();
  process->exec_id = request.exec_id;
  process->stdio = std::move(request.stdio);
  process->spec = std::move(request.spec.value);
  process->status = TaskStatus::kCreated;
  status = OpenIo(*process);
  if (!status.ok()) {
    done(status);
    return;
  }
  execs_[request.exec_id] = std::move(process);
  publish_(TaskExecAdded(request_.id, request.exec_id));
  done(absl::OkStatus());
}

void Container::StartExec(const std::string& exec_id, const DoneWith<Started>& done) {
  const auto fail = [&](absl::Status status) {
    done(std::move(status));
    operations_.Finish();
  };
  absl::StatusOr<Process*> found = Find(exec_id);
  if (!found.ok()) return fail(found.status());
  Process& process = **found;
  if (const absl::Status status = FAILPOINT("shim.exec.before"); !status.ok()) return fail(status);
  if (init_reaped_ || init_.status == TaskStatus::kStopped) {
    return fail(absl::FailedPreconditionError(
        absl::StrCat("exec in container '", request_.id, "': its init process is not running")));
  }
  if (init_.status == TaskStatus::kPaused) {
    return fail(absl::FailedPreconditionError(
        absl::StrCat("exec in container '", request_.id, "': it is paused; resume it first")));
  }
  if (process.status != TaskStatus::kCreated) {
    return fail(absl::FailedPreconditionError(
        absl::StrCat("start process '", exec_id, "': it was started before")));
  }
  process.starting = true;
  const int64_t began = sys::MonotonicNanos();
  runtime_->Exec(
      exec_id, process.spec,
      {process.io->program_stdin(), process.io->program_stdout(), process.io->program_stderr()},
      process.stdio.terminal, [this, exec_id, done, began](absl::StatusOr<Spawned> spawned) {
        Process& process = *execs_.at(exec_id);
        process.starting = false;
        Started started;
        absl::Status status = spawned.status();
        if (spawned.ok()) {
          started.pid = spawned->pid;
          started.timings = std::move(spawned->timings);
          process.status = TaskStatus::kRunning;
          std::string().swap(process.spec);
          status = AdoptPid(process, *std::move(spawned));
        }
        if (!status.ok()) {
          // An exec that could not start is stopped: Wait and Delete find an end.
          process.status = TaskStatus::kStopped;
          process.exit = {status.code() == absl::StatusCode::kNotFound ? 127 : 126, 0, absl::Now(),
                          "exited"};
          process.io.reset();
          if (process.pid > 0) (void)sys::SignalPidfd(process.pidfd, SIGKILL);
          done(status);
          AnswerWaiters(process);
        } else {
          process.io->OnStarted();
          publish_(TaskExecStarted(request_.id, exec_id, process.pid));
          started.timings.push_back({"shim.exec", (sys::MonotonicNanos() - began) / 1000});
          done(std::move(started));
        }
        if (pending_init_exit_.has_value() && !HasRunningExecs()) FinishInitExit();
        operations_.Finish();
      });
}

}  // namespace gantry::shim
