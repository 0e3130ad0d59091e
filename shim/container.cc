#include "shim/container.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "lib/sys/process.h"

namespace gantry::shim {
namespace {

constexpr absl::Duration kDrainPatience = absl::Seconds(10);
constexpr size_t kMaxExecs = 4096;

absl::Status AlreadyFinished() { return absl::NotFoundError("process already finished"); }

}  // namespace

Container::Container(sys::EventLoop& loop, Reaper& reaper, std::string ns,
                     std::string seccomp_cache, EventSink sink)
    : loop_(loop),
      reaper_(reaper),
      ns_(std::move(ns)),
      seccomp_cache_(std::move(seccomp_cache)),
      publish_(std::move(sink)) {}

Container::~Container() {
  *alive_ = false;
  loop_.Remove(oom_watch_);
  if (init_.pid > 0) reaper_.Forget(init_.pid);
  for (const auto& [exec_id, process] : execs_) {
    if (process->pid > 0) reaper_.Forget(process->pid);
    for (const DoneWith<ProcessExit>& waiter : process->waiters) waiter(AlreadyFinished());
  }
  for (const Operation& operation : operations_) {
    operation.reject(absl::NotFoundError(
        absl::StrCat("container '", request_.id, "' was deleted before its turn")));
  }
}

void Container::Enqueue(Operation operation) {
  operations_.push_back(std::move(operation));
  if (busy_) return;
  busy_ = true;
  const Operation first = std::move(operations_.front());
  operations_.pop_front();
  first.run();
}

void Container::FinishOperation() {
  if (operations_.empty()) {
    busy_ = false;
    return;
  }
  // From the loop: an operation ends deep inside another's callbacks.
  loop_.Post([this, alive = alive_] {
    if (!*alive) return;
    const Operation next = std::move(operations_.front());
    operations_.pop_front();
    next.run();
  });
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

// --- Create
// ---------------------------------------------------------------------------------------------------------------

absl::Status Container::PrepareRoot() {
  rootfs_ = absl::StrCat(request_.bundle, "/rootfs");
  if (request_.rootfs.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(FAILPOINT("shim.create.before_mount"));
  RETURN_IF_ERROR(sys::MakeDirectories(rootfs_, 0711));
  RETURN_IF_ERROR(sys::MountAll(request_.rootfs, rootfs_));
  mounted_ = true;
  return FAILPOINT("shim.create.after_mount");
}

absl::Status Container::OpenIo(Process& process) {
  ProcessIoOptions io;
  io.ns = ns_;
  io.container_id = request_.id;
  io.exec_id = process.exec_id;
  io.stdin_uri = process.stdin_uri;
  io.stdout_uri = process.stdout_uri;
  io.stderr_uri = process.stderr_uri;
  io.terminal = process.terminal;
  io.uid = options_.io_uid;
  io.gid = options_.io_gid;
  ASSIGN_OR_RETURN(process.io, ProcessIo::Open(loop_, reaper_, io));
  return absl::OkStatus();
}

void Container::Create(CreateTaskRequest request, DoneWith<Started> done) {
  request_ = std::move(request);
  busy_ = true;
  const int64_t began = sys::MonotonicNanos();
  absl::StatusOr<RuncOptions> options = ParseOptions(request_.options);
  absl::Status status = options.status();
  if (options.ok()) options_ = *std::move(options);
  if (status.ok() && !request_.checkpoint.empty()) {
    status = absl::UnimplementedError(
        "restore from a checkpoint is not supported by this shim; create without one");
  }
  if (status.ok()) status = SaveOptions(request_.bundle, request_.options);
  if (status.ok()) status = PrepareRoot();
  const int64_t mounted = sys::MonotonicNanos();
  init_.stdin_uri = request_.stdin_uri;
  init_.stdout_uri = request_.stdout_uri;
  init_.stderr_uri = request_.stderr_uri;
  init_.terminal = request_.terminal;
  if (status.ok()) status = OpenIo(init_);
  if (!status.ok()) {
    UndoCreate();
    done(status);
    return;
  }
  runtime_ =
      MakeRuntime(loop_, reaper_, {ns_, request_.id, request_.bundle, options_, seccomp_cache_});
  const int64_t opened = sys::MonotonicNanos();
  init_.starting = true;
  runtime_->Create(
      {init_.io->program_stdin(), init_.io->program_stdout(), init_.io->program_stderr()},
      init_.terminal,
      [this, done = std::move(done), began, mounted, opened](absl::StatusOr<Spawned> spawned) {
        if (spawned.ok()) {
          std::vector<StepTiming> timings = {{"shim.mount", (mounted - began) / 1000},
                                             {"shim.stdio", (opened - mounted) / 1000}};
          timings.insert(timings.end(), std::make_move_iterator(spawned->timings.begin()),
                         std::make_move_iterator(spawned->timings.end()));
          timings.push_back({"shim.create", (sys::MonotonicNanos() - began) / 1000});
          spawned->timings = std::move(timings);
        }
        OnCreated(std::move(spawned), done);
      });
}

void Container::UndoCreate() {
  init_.io.reset();
  if (!mounted_) return;
  mounted_ = false;
  if (const absl::Status status = sys::UnmountTree(rootfs_); !status.ok()) {
    log::Warning("could not unmount after a failed create", {{"status", status}});
  }
}

absl::Status Container::AdoptPid(Process& process, Spawned spawned) {
  process.pid = spawned.pid;
  process.pidfd = std::move(spawned.pidfd);
  if (spawned.console.ok()) process.io->SetConsole(std::move(spawned.console));
  reaper_.Watch(process.pid,
                [this, exec_id = process.exec_id, alive = alive_](const ChildExit& exit) {
                  if (*alive) OnChildExit(exec_id, exit);
                });
  return process.io->Begin(process.pid);
}

void Container::OnCreated(absl::StatusOr<Spawned> spawned, const DoneWith<Started>& done) {
  init_.starting = false;
  if (!spawned.ok()) {
    UndoCreate();
    done(spawned.status());
    return;
  }
  Started started;
  started.pid = spawned->pid;
  started.timings = std::move(spawned->timings);
  absl::Status status = AdoptPid(init_, *std::move(spawned));
  if (status.ok()) status = FAILPOINT("shim.create.after_runtime");
  // What `delete` prints when this process is gone.
  if (status.ok()) {
    status = sys::WriteFileAtomically(absl::StrCat(request_.bundle, "/init.pid"),
                                      absl::StrCat(init_.pid), 0644);
  }
  if (!status.ok()) {
    runtime_->Delete(/*force=*/true, [this, status, done](const absl::Status& deleted) {
      if (!deleted.ok()) log::Warning("could not undo a failed create", {{"status", deleted}});
      UndoCreate();
      done(status);
    });
    return;
  }
  init_.status = TaskStatus::kCreated;
  WatchOom();
  publish_(TaskCreate(request_, init_.pid));
  const std::shared_ptr<bool> alive = alive_;
  done(std::move(started));
  if (*alive) FinishOperation();
}

// --- Start
// ----------------------------------------------------------------------------------------------------------------

void Container::Start(const std::string& exec_id, DoneWith<Started> done) {
  Enqueue({[this, exec_id, done] {
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
    FinishOperation();
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
    FinishOperation();
  });
}

void Container::StartExec(const std::string& exec_id, const DoneWith<Started>& done) {
  const auto fail = [&](absl::Status status) {
    done(std::move(status));
    FinishOperation();
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
      process.terminal, [this, exec_id, done, began](absl::StatusOr<Spawned> spawned) {
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
        FinishOperation();
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
  process->stdin_uri = std::move(request.stdin_uri);
  process->stdout_uri = std::move(request.stdout_uri);
  process->stderr_uri = std::move(request.stderr_uri);
  process->terminal = request.terminal;
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

// --- Exit
// -----------------------------------------------------------------------------------------------------------------

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
  if (oom_.has_value()) OnOom();  // The event of a kill comes before the exit it caused.
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
  process.exit.reason = exit.status.signal == 0                           ? "exited"
                        : exit.status.signal == SIGKILL && oom_kills_ > 0 ? "oom"
                                                                          : "signalled";
  process.status = TaskStatus::kStopped;
  ExitRecord record;
  record.pid = process.pid;
  record.code = exit.status.code;
  record.signal = exit.status.signal;
  record.time = exit.time;
  record.reason = process.exit.reason;
  record.oom_kills = oom_kills_;
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

void Container::WatchOom() {
  absl::StatusOr<cgroup::OomWatch> watch = cgroup::OomWatch::Open(runtime_->cgroup());
  if (!watch.ok()) {
    // A container without a memory controller runs as well.
    log::Debug("no watch for lack of memory", {{"status", watch.status()}});
    return;
  }
  oom_ = *std::move(watch);
  absl::StatusOr<sys::EventLoop::Watch> added =
      loop_.Add(oom_->fd(), EPOLLIN, [this](uint32_t) { OnOom(); });
  if (added.ok()) oom_watch_ = *added;
}

void Container::OnOom() {
  const uint64_t kills = oom_->Drain();
  if (kills > 0) {
    oom_kills_ += kills;
    publish_(TaskOom(request_.id));
  }
  if (oom_->gone()) {
    loop_.Remove(std::exchange(oom_watch_, 0));
    oom_.reset();
  }
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

// --- While it runs
// ----------------------------------------------------------------------------------------------------------

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
  Enqueue({[this, done] {
             if (init_.status != TaskStatus::kRunning) {
               done(absl::FailedPreconditionError(
                   absl::StrCat("pause container '", request_.id, "': it is not running")));
               FinishOperation();
               return;
             }
             init_.status = TaskStatus::kPausing;
             runtime_->Pause([this, done](const absl::Status& status) {
               if (init_.status == TaskStatus::kPausing) {
                 init_.status = status.ok() ? TaskStatus::kPaused : TaskStatus::kRunning;
               }
               if (status.ok()) publish_(TaskPaused(request_.id));
               done(status);
               FinishOperation();
             });
           },
           done});
}

void Container::Resume(Done done) {
  Enqueue({[this, done] {
             if (init_.status != TaskStatus::kPaused) {
               done(absl::FailedPreconditionError(
                   absl::StrCat("resume container '", request_.id, "': it is not paused")));
               FinishOperation();
               return;
             }
             runtime_->Resume([this, done](const absl::Status& status) {
               if (status.ok() && init_.status == TaskStatus::kPaused)
                 init_.status = TaskStatus::kRunning;
               if (status.ok()) publish_(TaskResumed(request_.id));
               done(status);
               FinishOperation();
             });
           },
           done});
}

void Container::Update(const std::string& resources, Done done) {
  Enqueue({[this, resources, done] {
             if (init_.status == TaskStatus::kStopped) {
               done(absl::FailedPreconditionError(
                   absl::StrCat("update container '", request_.id, "': it is stopped")));
               FinishOperation();
               return;
             }
             runtime_->Update(resources, [this, done](const absl::Status& status) {
               done(status);
               FinishOperation();
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
  state.stdin_uri = process.stdin_uri;
  state.stdout_uri = process.stdout_uri;
  state.stderr_uri = process.stderr_uri;
  state.terminal = process.terminal;
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

// --- Delete
// -----------------------------------------------------------------------------------------------------------------

void Container::Delete(const std::string& exec_id, DoneWith<ProcessExit> done) {
  Enqueue({[this, exec_id, done] {
             if (exec_id.empty()) {
               DeleteInit(done);
             } else {
               DeleteExec(exec_id, done);
             }
           },
           done});
}

void Container::DrainIo(Process& process, std::function<void()> then) {
  if (process.io == nullptr || process.pid == 0) {
    then();
    return;
  }
  // Whichever comes first; the other finds it done.
  auto once = std::make_shared<bool>(false);
  auto timer = std::make_shared<sys::EventLoop::Timer>(0);
  const auto proceed = [this, once, timer, alive = alive_, then = std::move(then)] {
    if (*once || !*alive) return;
    *once = true;
    loop_.Cancel(*timer);
    then();
  };
  *timer = loop_.After(kDrainPatience, proceed);
  process.io->WhenDrained(proceed);
}

void Container::DeleteExec(const std::string& exec_id, const DoneWith<ProcessExit>& done) {
  absl::StatusOr<Process*> found = Find(exec_id);
  absl::Status status = found.status();
  if (found.ok() && (*found)->status == TaskStatus::kRunning) {
    status = absl::FailedPreconditionError(
        absl::StrCat("delete process '", exec_id, "': it is running; kill it first"));
  }
  if (!status.ok()) {
    done(status);
    FinishOperation();
    return;
  }
  DrainIo(**found, [this, exec_id, done] {
    const ProcessExit exit = ExitOf(*execs_.at(exec_id));
    for (const DoneWith<ProcessExit>& waiter : execs_.at(exec_id)->waiters) waiter(exit);
    execs_.erase(exec_id);
    (void)sys::Unlink(ExitRecordPath(request_.bundle, exec_id));
    publish_(TaskDelete(request_.id, exec_id, exit.pid, exit.code,
                        exit.time == absl::InfinitePast() ? absl::Now() : exit.time));
    done(exit);
    FinishOperation();
  });
}

void Container::DeleteInit(const DoneWith<ProcessExit>& done) {
  absl::Status status = FAILPOINT("shim.delete.before");
  if (status.ok() && init_.status != TaskStatus::kStopped && init_.status != TaskStatus::kCreated) {
    status = absl::FailedPreconditionError(
        absl::StrCat("delete container '", request_.id, "': it is running; kill it first"));
  }
  if (!status.ok()) {
    done(status);
    FinishOperation();
    return;
  }
  const auto finish = [this, done](const absl::Status& deleted) {
    if (!deleted.ok()) {
      done(deleted);
      FinishOperation();
      return;
    }
    absl::Status unmounted = FAILPOINT("shim.delete.before_unmount");
    if (unmounted.ok() && mounted_) unmounted = sys::UnmountTree(rootfs_);
    if (!unmounted.ok()) {
      done(unmounted);
      FinishOperation();
      return;
    }
    mounted_ = false;
    ProcessExit exit = ExitOf(init_);
    if (exit.time == absl::InfinitePast()) exit.time = absl::Now();
    publish_(TaskDelete(request_.id, request_.id, exit.pid, exit.code, exit.time));
    // Who waits for a container that never ran learns its end.
    AnswerWaiters(init_);
    done(exit);
  };
  const auto remove = [this, finish] {
    DrainIo(init_, [this, finish] { runtime_->Delete(/*force=*/false, finish); });
  };
  if (init_.status == TaskStatus::kStopped) {
    remove();
    return;
  }
  // Created: its waiting init is ended, and its end told, as that of any other.
  init_.waiters.push_back([remove](const absl::StatusOr<ProcessExit>&) { remove(); });
  runtime_->Kill(SIGKILL, /*all=*/false, [this, done](const absl::Status& status) {
    if (status.ok() || init_.status == TaskStatus::kStopped || init_reaped_) return;
    init_.waiters.pop_back();
    done(status);
    FinishOperation();
  });
}

}  // namespace gantry::shim
