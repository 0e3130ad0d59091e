#include "shim/container.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/sys/process.h"

namespace gantry::shim {
namespace {

absl::Status AlreadyFinished() { return absl::NotFoundError("process already finished"); }

}  // namespace

Container::Container(sys::EventLoop& loop, Reaper& reaper, std::string ns,
                     std::string seccomp_cache, EventSink sink)
    : loop_(loop),
      reaper_(reaper),
      ns_(std::move(ns)),
      seccomp_cache_(std::move(seccomp_cache)),
      publish_(std::move(sink)),
      oom_(loop, [this] { publish_(TaskOom(request_.id)); }),
      operations_(loop) {}

Container::~Container() {
  *alive_ = false;
  if (init_.pid > 0) reaper_.Forget(init_.pid);
  for (const auto& [exec_id, process] : execs_) {
    if (process->pid > 0) reaper_.Forget(process->pid);
    for (const DoneWith<ProcessExit>& waiter : process->waiters) waiter(AlreadyFinished());
  }
  operations_.Close(absl::NotFoundError(
      absl::StrCat("container '", request_.id, "' was deleted before its turn")));
}

absl::StatusOr<Container::Process*> Container::Find(const std::string& exec_id) {
  if (exec_id.empty()) return &init_;
  const auto found = execs_.find(exec_id);
  if (found == execs_.end()) {
    return absl::NotFoundError(
        absl::StrCat("process '", exec_id, "' of container '", request_.id, "' does not exist"));
  }
  return found->second.get();
}

bool Container::HasRunningExecs() const {
  return std::any_of(execs_.begin(), execs_.end(), [](const auto& entry) {
    return entry.second->status == TaskStatus::kRunning || entry.second->starting;
  });
}

ProcessExit Container::ExitOf(const Process& process) const {
  ProcessExit exit;
  exit.pid = process.pid;
  exit.code = process.exit.code;
  exit.time = process.status == TaskStatus::kStopped ? process.exit.time : absl::InfinitePast();
  return exit;
}

void Container::Kill(const std::string& exec_id, int signal, bool all, Done done) {
  absl::StatusOr<Process*> found = Find(exec_id);
  if (!found.ok()) {
    done(found.status());
    return;
  }
  Process& process = **found;
  if (signal < 0 || signal > SIGRTMAX) {
    done(absl::InvalidArgumentError(absl::StrCat("signal ", signal, " does not exist")));
    return;
  }
  if (process.status == TaskStatus::kStopped || (exec_id.empty() && init_reaped_)) {
    done(AlreadyFinished());
    return;
  }
  if (!exec_id.empty()) {
    if (process.pid == 0) {
      done(absl::FailedPreconditionError(
          absl::StrCat("kill process '", exec_id, "': it was not started")));
      return;
    }
    const absl::Status status = sys::SignalPidfd(process.pidfd, signal);
    done(absl::IsNotFound(status) ? AlreadyFinished() : status);
    return;
  }
  if (init_.pid == 0) {
    done(absl::FailedPreconditionError("kill: the container is being created"));
    return;
  }
  // Past the queue: a kill must reach a container whose other operation hangs.
  runtime_->Kill(signal, all, [done = std::move(done)](const absl::Status& status) {
    done(absl::IsNotFound(status) || absl::StrContains(status.message(), "not running")
             ? AlreadyFinished()
             : status);
  });
}

void Container::Pause(Done done) {
  operations_.Add({[this, done] {
                     if (init_.status != TaskStatus::kRunning) {
                       done(absl::FailedPreconditionError(
                           absl::StrCat("pause container '", request_.id, "': it is not running")));
                       operations_.Finish();
                       return;
                     }
                     init_.status = TaskStatus::kPausing;
                     runtime_->Pause([this, done](const absl::Status& status) {
                       if (init_.status == TaskStatus::kPausing) {
                         init_.status = status.ok() ? TaskStatus::kPaused : TaskStatus::kRunning;
                       }
                       if (status.ok()) publish_(TaskPaused(request_.id));
                       done(status);
                       operations_.Finish();
                     });
                   },
                   done});
}

void Container::Resume(Done done) {
  operations_.Add({[this, done] {
                     if (init_.status != TaskStatus::kPaused) {
                       done(absl::FailedPreconditionError(
                           absl::StrCat("resume container '", request_.id, "': it is not paused")));
                       operations_.Finish();
                       return;
                     }
                     runtime_->Resume([this, done](const absl::Status& status) {
                       if (status.ok() && init_.status == TaskStatus::kPaused)
                         init_.status = TaskStatus::kRunning;
                       if (status.ok()) publish_(TaskResumed(request_.id));
                       done(status);
                       operations_.Finish();
                     });
                   },
                   done});
}

void Container::Update(const std::string& resources, Done done) {
  operations_.Add({[this, resources, done] {
                     if (init_.status == TaskStatus::kStopped) {
                       done(absl::FailedPreconditionError(
                           absl::StrCat("update container '", request_.id, "': it is stopped")));
                       operations_.Finish();
                       return;
                     }
                     runtime_->Update(resources, [this, done](const absl::Status& status) {
                       done(status);
                       operations_.Finish();
                     });
                   },
                   done});
}

absl::StatusOr<ProcessState> Container::State(const std::string& exec_id) const {
  absl::StatusOr<Process*> found = const_cast<Container*>(this)->Find(exec_id);
  RETURN_IF_ERROR(found.status());
  const Process& process = **found;
  ProcessState state;
  state.id = request_.id;
  state.exec_id = exec_id;
  state.bundle = request_.bundle;
  state.pid = process.pid;
  state.status = process.status;
  // A frozen cgroup holds execs as it holds init.
  if (!exec_id.empty() && process.status == TaskStatus::kRunning &&
      (init_.status == TaskStatus::kPaused || init_.status == TaskStatus::kPausing)) {
    state.status = init_.status;
  }
  state.stdio = process.stdio;
  if (process.status == TaskStatus::kStopped) {
    state.exit_code = process.exit.code;
    state.exited_at = process.exit.time;
  }
  return state;
}

absl::Status Container::ResizePty(const std::string& exec_id, uint32_t width, uint32_t height) {
  ASSIGN_OR_RETURN(Process* const process, Find(exec_id));
  if (process->io == nullptr) return absl::OkStatus();
  return process->io->ResizeTerminal(static_cast<uint16_t>(std::min(width, 65535u)),
                                     static_cast<uint16_t>(std::min(height, 65535u)));
}

absl::Status Container::CloseIo(const std::string& exec_id) {
  ASSIGN_OR_RETURN(Process* const process, Find(exec_id));
  if (process->io != nullptr) process->io->CloseStdin();
  return absl::OkStatus();
}

absl::StatusOr<AttachHub*> Container::Hub(const std::string& exec_id) {
  ASSIGN_OR_RETURN(Process* const process, Find(exec_id));
  AttachHub* const hub = process->io == nullptr ? nullptr : process->io->hub();
  if (hub == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "attach to container '", request_.id, "': it was created without attach (gantry-log URI)"));
  }
  return hub;
}

absl::Status Container::ReopenLogs() {
  absl::Status status;
  if (init_.io != nullptr && init_.io->log() != nullptr) status = init_.io->log()->Reopen();
  for (const auto& [exec_id, process] : execs_) {
    if (process->io != nullptr && process->io->log() != nullptr) {
      status = FirstError(status, process->io->log()->Reopen());
    }
  }
  return status;
}

absl::StatusOr<std::vector<std::pair<int, std::string>>> Container::Pids() const {
  if (runtime_ == nullptr) return absl::FailedPreconditionError("the container is being created");
  ASSIGN_OR_RETURN(const std::vector<pid_t> pids, runtime_->cgroup().Pids());
  std::vector<std::pair<int, std::string>> named;
  for (const pid_t pid : pids) {
    const auto exec = std::find_if(execs_.begin(), execs_.end(), [&](const auto& entry) {
      return entry.second->pid == pid && entry.second->status == TaskStatus::kRunning;
    });
    named.emplace_back(pid, exec == execs_.end() ? "" : exec->first);
  }
  return named;
}

}  // namespace gantry::shim
