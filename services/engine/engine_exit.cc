// Engine: what follows the end of a run, and the ends people ask for.
#include <signal.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/oci/spec.h"
#include "lib/sys/file.h"
#include "services/engine/engine.h"

namespace gantry::engine {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(2);
constexpr absl::Duration kLongestBlindness = absl::Seconds(2);  // For the end of a container.
constexpr absl::Duration kKillGrace = absl::Seconds(30);
constexpr int kVanishedCode = 255;

}  // namespace

void Engine::OnTaskEnded(const ContainerPtr& container, uint64_t number, int attempt,
                         absl::StatusOr<TaskExit> exit) {
  if (absl::IsCancelled(exit.status()) || stopping_) return;
  if (!exit.ok() && !absl::IsNotFound(exit.status())) {
    // It may run well: only the question failed. Calls wait for a peer that is away, so this is
    // rare.
    if (attempt == 0) {
      log::Warning("a container cannot be waited for, trying again",
                   {{"container", container->id()}, {"error", exit.status()}});
    }
    executor_.RunAfter(std::min(RetryDelay(attempt), kLongestBlindness),
                       [this, container, number, attempt] {
                         if (container->run().number == number)
                           WatchRun(container, number, attempt + 1);
                       });
    return;
  }
  TaskExit known;
  std::string trouble;
  if (exit.ok()) {
    known = *exit;
  } else {
    known.code = kVanishedCode;
    known.exited_at = absl::Now();
    trouble = absl::StrCat("its end was not seen: ", exit.status().message());
  }
  // A thread of gRPC must not wait for the container or for other processes.
  executor_.Run(
      [this, container, number, known, trouble] { HandleExit(container, number, known, trouble); });
}

void Engine::HandleExit(const ContainerPtr& container, uint64_t number, const TaskExit& exit,
                        const std::string& trouble) {
  absl::StatusOr<Container::Operation> operation = container->Begin("handle the end of", kPatience);
  if (absl::IsNotFound(operation.status())) return;  // Removed.
  if (!operation.ok()) {
    executor_.RunAfter(absl::Seconds(1), [this, container, number, exit, trouble] {
      HandleExit(container, number, exit, trouble);
    });
    return;
  }
  // An end that a start that failed has dealt with already.
  if (!IsLive(container->state()) || container->run().number != number) return;

  StepTimer timer(exit.exited_at);
  timer.Step("exit_notice");
  const bool again = ShouldRestart(*container, exit.code);
  const absl::Status marked =
      container->MarkEnded(exit.code, exit.exited_at, again ? State::kRestarting : State::kExited);
  if (!marked.ok()) {
    log::Error("an end could not be noted", {{"container", container->id()}, {"error", marked}});
    return;
  }
  log::Info("container ended", {{"container", container->id()},
                                {"code", exit.code},
                                {"oom", container->last_run().oom_killed()},
                                {"restarts", again},
                                {"trouble", trouble}});
  TellAt(*container, "die", {{"exitCode", absl::StrCat(exit.code)}}, exit.exited_at);
  UpdateGauges();
  Settle(container, *operation, 0, timer);
}

bool Engine::ShouldRestart(const Container& container, int32_t exit_code) const {
  if (stopping_ || container.stopped_by_user()) return false;
  const v1::RestartPolicy& policy = container.config().restart();
  if (policy.name() == "always" || policy.name() == "unless-stopped") return true;
  return policy.name() == "on-failure" && exit_code != 0 &&
         (policy.maximum_retries() == 0 ||
          container.last_run().restart_count() < policy.maximum_retries());
}

absl::Status Engine::FinishRun(const ContainerPtr& container, StepTimer& timer) {
  const std::string& id = container->id();
  // First the record, then the shim's: the exit code is always in one of them.
  const bool goes = container->goes_with_its_end() && container->state() == State::kExited;
  if (!goes) RETURN_IF_ERROR(RecordNow(*container));
  RETURN_IF_ERROR(FAILPOINT("engine.exit.after_record"));
  RETURN_IF_ERROR(tasks_.Delete(id));
  timer.Step("task_delete");
  RETURN_IF_ERROR(FAILPOINT("engine.exit.after_task_delete"));
  RETURN_IF_ERROR(network_.Release(id));
  TellResources(*container, false);
  // Of one that goes now, the removal takes all files.
  if (!goes) RETURN_IF_ERROR(RemoveRuntimeDirectory(id));
  timer.Step("network_release");
  container->SetNeedsCleanup(false);
  return absl::OkStatus();
}

void Engine::Settle(const ContainerPtr& container, Container::Operation& operation, int attempt,
                    StepTimer& timer) {
  const State state = container->state();
  if (IsLive(state)) return;
  absl::Status done;
  if (container->needs_cleanup()) done = FinishRun(container, timer);
  if (done.ok() && container->goes_with_its_end() &&
      (state == State::kExited || state == State::kDead)) {
    done = RemoveHeld(container, true, timer);
  }
  if (!done.ok()) {
    if (attempt == 0) {
      log::Warning("an end is not cleaned up, trying again",
                   {{"container", container->id()}, {"error", done}});
    }
    SettleLater(container, RetryDelay(attempt), attempt + 1);
    return;
  }
  if (state != State::kRestarting) return;
  const v1::LastRun last = container->last_run();
  const absl::Duration ran = FromProto(last.finished_at()) - FromProto(last.started_at());
  ScheduleRestart(container, container->NextRestartDelay(ran));
}

void Engine::SettleLater(const ContainerPtr& container, absl::Duration delay, int attempt) {
  executor_.RunAfter(delay, [this, container, attempt] {
    absl::StatusOr<Container::Operation> operation = container->Begin("clean up", kPatience);
    if (absl::IsNotFound(operation.status())) return;
    if (!operation.ok()) {
      SettleLater(container, RetryDelay(attempt), attempt + 1);
      return;
    }
    // Dead: only a person decides to try again. Anything else did not get further.
    if (container->state() != State::kDead || container->goes_with_its_end()) {
      StepTimer timer;
      Settle(container, *operation, attempt, timer);
    }
  });
}

void Engine::ScheduleRestart(const ContainerPtr& container, absl::Duration delay) {
  const uint64_t number = container->run().number;
  executor_.RunAfter(delay, [this, container, number] { RestartByPolicy(container, number); });
}

void Engine::RestartByPolicy(const ContainerPtr& container, uint64_t number) {
  absl::StatusOr<Container::Operation> operation = container->Begin("restart", kPatience);
  if (absl::IsNotFound(operation.status())) return;
  if (!operation.ok()) {
    ScheduleRestart(container, absl::Seconds(1));
    return;
  }
  // Stopped, removed, or started by a person meanwhile.
  if (container->state() != State::kRestarting || container->run().number != number) return;
  container->CountRestart();
  StepTimer timer;
  const absl::Status started = StartRun(container, StartOptions(), timer);
  if (started.ok()) {
    log::Info("container restarted", {{"container", container->id()},
                                      {"restarts", container->last_run().restart_count()}});
    return;
  }
  log::Warning("a restart failed", {{"container", container->id()}, {"error", started}});
  if (!ShouldRestart(*container, kVanishedCode) || !container->BackToRestarting().ok()) return;
  ScheduleRestart(container, container->NextRestartDelay(absl::ZeroDuration()));
}

absl::Status Engine::RecordNow(Container& container) {
  const std::optional<v1::ContainerRecord> record = container.BeginRecording();
  if (!record.has_value()) return absl::OkStatus();
  metadata::v1::CommitRecordsRequest request;
  metadata::v1::RecordWrite* write = request.add_writes();
  write->set_bucket(kContainerBucket);
  write->set_key(container.id());
  write->set_value(record->SerializeAsString());
  const absl::Status committed = metadata_.Commit(request);
  container.EndRecording(committed.ok());
  return committed;
}

void Engine::RecordSoon(const ContainerPtr& container) {
  executor_.Run([this, container] {
    Persist("record the state of a container", container->id(),
            [this, container] { return RecordNow(*container); });
  });
}

void Engine::Persist(const std::string& what, const std::string& object,
                     std::function<absl::Status()> work, int attempt) {
  const absl::Status done = work();
  if (done.ok() || absl::IsNotFound(done)) return;
  if (attempt == 0) {
    log::Warning("something is left to do, trying again",
                 {{"what", what}, {"object", object}, {"error", done}});
  }
  executor_.RunAfter(RetryDelay(attempt), [this, what, object, work = std::move(work), attempt] {
    Persist(what, object, work, attempt + 1);
  });
}

// One stop: signal, wait, SIGKILL, wait. Lives in the callbacks that refer to it.
class Engine::StopOperation : public std::enable_shared_from_this<StopOperation> {
 public:
  StopOperation(Engine& engine, ContainerPtr container, int signal, absl::Duration timeout,
                StatusCallback done)
      : engine_(engine),
        container_(std::move(container)),
        signal_(signal),
        timeout_(timeout),
        done_(std::move(done)) {}

  void Begin() {
    container_->SetStoppedByUser();
    if (!IsLive(container_->state())) {
      // A start may be under way: it is let through, and then stopped.
      absl::StatusOr<Container::Operation> operation = container_->Begin("stop", kPatience);
      if (!operation.ok()) {
        return Finish(absl::IsNotFound(operation.status()) ? absl::OkStatus() : operation.status());
      }
      container_->GiveUpRestarting();
    }
    if (container_->state() == State::kPaused) {
      // A frozen program gets no signal.
      const absl::Status thawed = engine_.Unpause(container_->id());
      if (!thawed.ok() && container_->state() == State::kPaused) return Finish(thawed);
    }
    auto self = shared_from_this();
    // First the signal, then the wait, which answers at once when there is nothing to wait for.
    if (IsLive(container_->state())) {
      was_live_ = true;
      const absl::Status killed = engine_.tasks_.Kill(container_->id(), "", signal_);
      if (killed.ok()) engine_.TellKill(*container_, signal_);
      if (!killed.ok() && !absl::IsNotFound(killed)) {
        log::Warning("a stop signal was not sent",
                     {{"container", container_->id()}, {"error", killed}});
      }
    }
    const Executor::Timer timer = engine_.executor_.RunAfter(timeout_, [self] { self->TimeOut(); });
    {
      absl::MutexLock lock(&mutex_);
      timer_ = timer;
    }
    container_->Wait(v1::WaitContainerRequest::NOT_RUNNING, [self](const WaitResult& result) {
      if (!result.status.ok()) return self->Finish(result.status);
      // Answered when the end is recorded and cleaned up, so that what follows finds it so.
      self->container_->WaitForLogsComplete([self] { self->Finish(absl::OkStatus()); });
    });
  }

 private:
  // Runs when the program had its time, and once more when even SIGKILL did not end it.
  void TimeOut() {
    bool give_up = false;
    {
      absl::MutexLock lock(&mutex_);
      if (done_ == nullptr) return;
      give_up = killed_;
      killed_ = true;
      timer_ = 0;
    }
    if (give_up) {
      Finish(absl::DeadlineExceededError(
          absl::StrCat("container '", container_->name(),
                       "' did not end after SIGKILL; see what its processes wait for")));
      return;
    }
    const absl::Status killed = engine_.tasks_.Kill(container_->id(), "", SIGKILL, true);
    if (killed.ok()) engine_.TellKill(*container_, SIGKILL);
    if (!killed.ok() && !absl::IsNotFound(killed)) {
      log::Warning("a container was not killed",
                   {{"container", container_->id()}, {"error", killed}});
    }
    auto self = shared_from_this();
    const Executor::Timer timer =
        engine_.executor_.RunAfter(kKillGrace, [self] { self->TimeOut(); });
    absl::MutexLock lock(&mutex_);
    timer_ = timer;
  }

  void Finish(const absl::Status& status) {
    StatusCallback done;
    Executor::Timer timer = 0;
    {
      absl::MutexLock lock(&mutex_);
      done.swap(done_);
      timer = timer_;
    }
    if (timer != 0) engine_.executor_.Cancel(timer);
    if (done != nullptr && status.ok() && was_live_) engine_.Tell(*container_, "stop");
    if (done != nullptr) done(status);
  }

  Engine& engine_;
  const ContainerPtr container_;
  const int signal_;
  const absl::Duration timeout_;
  absl::Mutex mutex_;
  std::atomic<bool> was_live_{false};
  StatusCallback done_ ABSL_GUARDED_BY(mutex_);
  bool killed_ ABSL_GUARDED_BY(mutex_) = false;
  Executor::Timer timer_ ABSL_GUARDED_BY(mutex_) = 0;
};

void Engine::StopContainer(const v1::StopContainerRequest& request, StatusCallback done) {
  const absl::Time began = absl::Now();
  absl::StatusOr<ContainerPtr> container = index_.Find(request.container());
  if (!container.ok()) return done(container.status());
  int signal = static_cast<int>((*container)->definition().stop_signal());
  if (!request.signal().empty()) {
    absl::StatusOr<int> parsed = oci::ParseSignal(request.signal());
    if (!parsed.ok()) return done(parsed.status());
    signal = *parsed;
  }
  absl::Duration timeout = options_.stop_timeout;
  if ((*container)->config().has_stop_timeout()) {
    timeout = absl::Seconds((*container)->config().stop_timeout().seconds()) +
              absl::Nanoseconds((*container)->config().stop_timeout().nanos());
  }
  if (request.has_timeout()) {
    timeout =
        absl::Seconds(request.timeout().seconds()) + absl::Nanoseconds(request.timeout().nanos());
  }
  if (timeout < absl::ZeroDuration()) timeout = absl::Hours(24 * 365);  // -1: as long as it takes.
  auto stop = std::make_shared<StopOperation>(*this, *container, signal, timeout,
                                              [this, began, done](const absl::Status& status) {
                                                CountAction("stop", began);
                                                done(status);
                                              });
  executor_.Run([stop] { stop->Begin(); });
}

void Engine::Restart(const v1::RestartContainerRequest& request, StatusCallback done) {
  v1::StopContainerRequest stop;
  stop.set_container(request.container());
  stop.set_signal(request.signal());
  if (request.has_timeout()) *stop.mutable_timeout() = request.timeout();
  v1::StartContainerRequest start;
  start.set_container(request.container());
  absl::StatusOr<ContainerPtr> container = index_.Find(request.container());
  if (!container.ok()) return done(container.status());
  // This end is not the one that --rm means.
  (*container)->SetKept(true);
  StopContainer(stop, [this, container = *container, start, done](const absl::Status& stopped) {
    if (!stopped.ok()) {
      container->SetKept(false);
      return done(stopped);
    }
    executor_.Run([this, container, start, done] {
      const absl::Status started = Start(start).status();
      container->SetKept(false);
      if (started.ok()) Tell(*container, "restart");
      if (!started.ok()) SettleLater(container, absl::ZeroDuration(), 0);
      done(started);
    });
  });
}

absl::Status Engine::Kill(const v1::KillContainerRequest& request) {
  const absl::Time began = absl::Now();
  ASSIGN_OR_RETURN(int signal,
                   oci::ParseSignal(request.signal().empty() ? "KILL" : request.signal()));
  ASSIGN_OR_RETURN(ContainerPtr container, FindRunning(request.container(), "kill"));
  // Who kills does not want it back at once (Docker does the same for SIGKILL and the stop signal).
  if (signal == SIGKILL || signal == static_cast<int>(container->definition().stop_signal())) {
    container->SetStoppedByUser();
  }
  absl::Status killed = tasks_.Kill(container->id(), "", signal);
  if (absl::IsNotFound(killed)) {
    killed = WrongState("kill", container->name(), State::kExited);
  }
  if (killed.ok()) TellKill(*container, signal);
  // The frozen die when they thaw.
  if (killed.ok() && signal == SIGKILL && container->state() == State::kPaused) {
    killed = Unpause(container->id());
  }
  CountAction("kill", began);
  return killed;
}

}  // namespace gantry::engine
