#include "services/engine/container.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/status.h"

namespace gantry::engine {
namespace {

constexpr absl::Duration kFirstDelay = absl::Milliseconds(100);
constexpr absl::Duration kLongestDelay = absl::Minutes(1);
constexpr absl::Duration kSoundRun = absl::Seconds(10);

State LoadedState(const v1::LastRun& run) {
  switch (run.phase()) {
    case v1::LastRun::ENDED:
      return State::kExited;
    case v1::LastRun::RESTARTING:
      return State::kRestarting;
    case v1::LastRun::DEAD:
      return State::kDead;
    default:
      return State::kCreated;
  }
}

v1::LastRun::Phase PhaseOf(State state, v1::LastRun::Phase old) {
  switch (state) {
    case State::kCreated:
      return v1::LastRun::NEW;
    case State::kRunning:
    case State::kPaused:
      return v1::LastRun::STARTED;
    case State::kExited:
      return v1::LastRun::ENDED;
    case State::kRestarting:
      return v1::LastRun::RESTARTING;
    case State::kRemoving:
      return old;  // An interrupted removal leaves the container as it was.
    case State::kDead:
      return v1::LastRun::DEAD;
  }
  return old;
}

}  // namespace

google::protobuf::Timestamp ToProto(absl::Time time) {
  google::protobuf::Timestamp proto;
  const int64_t seconds = absl::ToUnixSeconds(time);
  proto.set_seconds(seconds);
  proto.set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
  return proto;
}

absl::Time FromProto(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0 && time.nanos() == 0) return absl::InfinitePast();
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

Container::Container(v1::ContainerRecord record)
    : definition_(std::move(*record.mutable_definition())),
      name_(record.name()),
      state_(LoadedState(record.run())),
      last_run_(record.run()),
      next_delay_(kFirstDelay) {}

std::string Container::name() const {
  absl::MutexLock lock(&mutex_);
  return name_;
}

void Container::SetName(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  name_ = name;
  Changed();
}

State Container::state() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

Run Container::run() const {
  absl::MutexLock lock(&mutex_);
  return run_;
}

bool Container::busy() const {
  absl::MutexLock lock(&mutex_);
  return !busy_with_.empty();
}

v1::LastRun Container::last_run() const {
  absl::MutexLock lock(&mutex_);
  return last_run_;
}

v1::ContainerState Container::StateProto() const {
  absl::MutexLock lock(&mutex_);
  v1::ContainerState proto;
  switch (state_) {
    case State::kCreated:
      proto.set_status(v1::ContainerState::CREATED);
      break;
    case State::kRunning:
      proto.set_status(v1::ContainerState::RUNNING);
      break;
    case State::kPaused:
      proto.set_status(v1::ContainerState::PAUSED);
      break;
    case State::kRestarting:
      proto.set_status(v1::ContainerState::RESTARTING);
      break;
    case State::kExited:
      proto.set_status(v1::ContainerState::EXITED);
      break;
    case State::kRemoving:
      proto.set_status(v1::ContainerState::REMOVING);
      break;
    case State::kDead:
      proto.set_status(v1::ContainerState::DEAD);
      break;
  }
  if (IsLive(state_)) proto.set_pid(run_.pid);
  proto.set_exit_code(last_run_.exit_code());
  proto.set_oom_killed(last_run_.oom_killed());
  proto.set_error(last_run_.error());
  if (last_run_.has_started_at()) *proto.mutable_started_at() = last_run_.started_at();
  if (last_run_.has_finished_at()) *proto.mutable_finished_at() = last_run_.finished_at();
  proto.set_restart_count(last_run_.restart_count());
  return proto;
}

v1::ContainerRecord Container::ToRecord() const {
  absl::MutexLock lock(&mutex_);
  v1::ContainerRecord record;
  record.set_version(1);
  record.set_name(name_);
  *record.mutable_definition() = definition_;
  *record.mutable_run() = last_run_;
  return record;
}

void Container::Operation::End() {
  if (container_ == nullptr) return;
  {
    absl::MutexLock lock(&container_->mutex_);
    container_->busy_with_.clear();
  }
  container_ = nullptr;
}

absl::StatusOr<Container::Operation> Container::Begin(absl::string_view verb,
                                                      absl::Duration patience) {
  absl::MutexLock lock(&mutex_);
  auto idle = [this]()
                  ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return busy_with_.empty() || removed_; };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&idle), patience)) {
    return absl::DeadlineExceededError(absl::StrCat("cannot ", verb, " container '", name_,
                                                    "': it is busy (", busy_with_,
                                                    "); try again later"));
  }
  if (removed_) return absl::NotFoundError(absl::StrCat("No such container: ", id()));
  busy_with_ = std::string(verb);
  return Operation(shared_from_this());
}

absl::Status Container::Move(absl::string_view verb, State to) {
  if (!IsLegalTransition(state_, to)) return WrongState(verb, name_, state_);
  state_ = to;
  last_run_.set_phase(PhaseOf(to, last_run_.phase()));
  Changed();
  return absl::OkStatus();
}

absl::Status Container::MarkRunning(Run run) {
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(Move("start", State::kRunning));
  run_ = std::move(run);
  *last_run_.mutable_started_at() = ToProto(run_.started_at);
  last_run_.set_exit_code(0);
  last_run_.set_oom_killed(false);
  last_run_.clear_error();
  last_run_.clear_finished_at();
  needs_cleanup_ = true;
  return absl::OkStatus();
}

absl::Status Container::MarkPaused() {
  absl::MutexLock lock(&mutex_);
  return Move("pause", State::kPaused);
}

absl::Status Container::MarkUnpaused() {
  absl::MutexLock lock(&mutex_);
  if (state_ != State::kPaused) return WrongState("unpause", name_, state_);
  return Move("unpause", State::kRunning);
}

absl::Status Container::MarkRemoving() {
  absl::MutexLock lock(&mutex_);
  return Move("remove", State::kRemoving);
}

absl::Status Container::MarkDead(const std::string& reason) {
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(Move("give up removing", State::kDead));
  last_run_.set_error(reason);
  return absl::OkStatus();
}

absl::Status Container::MarkEnded(int32_t exit_code, absl::Time at, State next) {
  std::vector<Waiter> waiters;
  WaitResult result;
  {
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(Move("end", next));
    last_run_.set_exit_code(exit_code);
    *last_run_.mutable_finished_at() = ToProto(at);
    run_.pid = 0;
    waiters = next == State::kRestarting ? Take({WaitKind::kNextExit})
                                         : Take({WaitKind::kNextExit, WaitKind::kNotRunning});
    result = EndedResult();
  }
  execs_.EndAll(137);
  Complete(std::move(waiters), result);
  return absl::OkStatus();
}

void Container::MarkStartFailed(int32_t exit_code, const std::string& reason) {
  std::vector<Waiter> waiters;
  WaitResult result;
  {
    absl::MutexLock lock(&mutex_);
    if (state_ == State::kRestarting) {
      state_ = State::kExited;
      last_run_.set_phase(v1::LastRun::ENDED);
    }
    last_run_.set_exit_code(exit_code);
    last_run_.set_error(reason);
    Changed();
    waiters = Take({WaitKind::kNextExit, WaitKind::kNotRunning});
    result = EndedResult();
  }
  Complete(std::move(waiters), result);
}

absl::Status Container::BackToRestarting() {
  absl::MutexLock lock(&mutex_);
  return Move("restart", State::kRestarting);
}

void Container::GiveUpRestarting() {
  std::vector<Waiter> waiters;
  WaitResult result;
  {
    absl::MutexLock lock(&mutex_);
    if (state_ != State::kRestarting) return;
    state_ = State::kExited;
    last_run_.set_phase(v1::LastRun::ENDED);
    Changed();
    waiters = Take({WaitKind::kNotRunning});
    result = EndedResult();
  }
  Complete(std::move(waiters), result);
}

void Container::MarkRemoved(std::vector<v1::StepTiming> timings) {
  std::vector<Waiter> waiters;
  WaitResult result;
  {
    absl::MutexLock lock(&mutex_);
    removed_ = true;
    waiters = Take(
        {WaitKind::kNextExit, WaitKind::kNotRunning, WaitKind::kRemoved, WaitKind::kLogsComplete});
    result = EndedResult();
    result.timings = std::move(timings);
  }
  execs_.EndAll(137);
  Complete(std::move(waiters), result);
}

void Container::AdoptRun(Run run, bool paused) {
  absl::MutexLock lock(&mutex_);
  state_ = paused ? State::kPaused : State::kRunning;
  last_run_.set_phase(v1::LastRun::STARTED);
  last_run_.set_exit_code(0);
  last_run_.clear_error();
  last_run_.clear_finished_at();
  if (run.started_at != absl::InfinitePast()) {
    *last_run_.mutable_started_at() = ToProto(run.started_at);
  }
  run_ = std::move(run);
  needs_cleanup_ = true;
  Changed();
}

void Container::MarkLost(int32_t exit_code, const std::string& reason, State next) {
  absl::MutexLock lock(&mutex_);
  state_ = next;
  last_run_.set_phase(PhaseOf(next, last_run_.phase()));
  last_run_.set_exit_code(exit_code);
  last_run_.set_error(reason);
  *last_run_.mutable_finished_at() = ToProto(absl::Now());
  // There may be a network endpoint or a directory left, and the end has to be recorded.
  needs_cleanup_ = true;
  Changed();
}

uint64_t Container::NextRunNumber() {
  absl::MutexLock lock(&mutex_);
  return ++run_number_;
}

void Container::CountRestart() {
  absl::MutexLock lock(&mutex_);
  last_run_.set_restart_count(last_run_.restart_count() + 1);
  Changed();
}

void Container::ResetRestarts() {
  absl::MutexLock lock(&mutex_);
  last_run_.set_restart_count(0);
  last_run_.set_stopped_by_user(false);
  next_delay_ = kFirstDelay;
  Changed();
}

void Container::SetStoppedByUser() {
  absl::MutexLock lock(&mutex_);
  if (last_run_.stopped_by_user()) return;
  last_run_.set_stopped_by_user(true);
  Changed();
}

bool Container::stopped_by_user() const {
  absl::MutexLock lock(&mutex_);
  return last_run_.stopped_by_user();
}

void Container::SetOomKilled() {
  absl::MutexLock lock(&mutex_);
  last_run_.set_oom_killed(true);
  Changed();
}

void Container::SetShimSocket(const std::string& socket) {
  absl::MutexLock lock(&mutex_);
  run_.shim_socket = socket;
}

void Container::SetBootId(const std::string& boot_id) {
  absl::MutexLock lock(&mutex_);
  last_run_.set_boot_id(boot_id);
}

std::optional<std::vector<containerd::types::Mount>> Container::rootfs() const {
  absl::MutexLock lock(&mutex_);
  return rootfs_;
}

void Container::SetRootfs(std::vector<containerd::types::Mount> mounts) {
  absl::MutexLock lock(&mutex_);
  rootfs_ = std::move(mounts);
}

bool Container::needs_cleanup() const {
  absl::MutexLock lock(&mutex_);
  return needs_cleanup_;
}

void Container::SetNeedsCleanup(bool needed) {
  std::vector<Waiter> waiters;
  {
    absl::MutexLock lock(&mutex_);
    needs_cleanup_ = needed;
    if (!needed) waiters = Take({WaitKind::kLogsComplete});
  }
  Complete(std::move(waiters), WaitResult());
}

bool Container::goes_with_its_end() const {
  absl::MutexLock lock(&mutex_);
  return definition_.config().auto_remove() && !kept_;
}

void Container::SetKept(bool kept) {
  absl::MutexLock lock(&mutex_);
  kept_ = kept;
}

absl::Duration Container::NextRestartDelay(absl::Duration ran) {
  absl::MutexLock lock(&mutex_);
  if (ran >= kSoundRun) next_delay_ = kFirstDelay;
  const absl::Duration delay = next_delay_;
  next_delay_ = std::min(next_delay_ * 2, kLongestDelay);
  return delay;
}

std::optional<v1::ContainerRecord> Container::BeginRecording() {
  {
    absl::MutexLock lock(&mutex_);
    auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !recording_; };
    mutex_.Await(absl::Condition(&idle));
    if (recorded_version_ == version_ || removed_) return std::nullopt;
    recording_ = true;
    recording_version_ = version_;
  }
  return ToRecord();
}

void Container::HoldRecording() {
  absl::MutexLock lock(&mutex_);
  auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !recording_; };
  mutex_.Await(absl::Condition(&idle));
  recording_ = true;
}

void Container::EndRecording(bool written) {
  absl::MutexLock lock(&mutex_);
  recording_ = false;
  if (written) recorded_version_ = recording_version_;
}

uint64_t Container::Wait(v1::WaitContainerRequest::Condition condition, WaitCallback callback) {
  WaitResult result;
  {
    absl::MutexLock lock(&mutex_);
    WaitKind kind = WaitKind::kNotRunning;
    bool now = removed_;
    switch (condition) {
      case v1::WaitContainerRequest::NEXT_EXIT:
        kind = WaitKind::kNextExit;
        break;
      case v1::WaitContainerRequest::REMOVED:
        kind = WaitKind::kRemoved;
        break;
      default:
        now = now || !(IsLive(state_) || state_ == State::kRestarting);
    }
    if (!now) {
      waiters_.push_back({++last_ticket_, kind, std::move(callback)});
      return last_ticket_;
    }
    result = EndedResult();
  }
  callback(result);
  return 0;
}

uint64_t Container::WaitForLogsComplete(std::function<void()> callback) {
  {
    absl::MutexLock lock(&mutex_);
    if (needs_cleanup_ && !removed_) {
      waiters_.push_back({++last_ticket_, WaitKind::kLogsComplete,
                          [callback = std::move(callback)](const WaitResult&) { callback(); }});
      return last_ticket_;
    }
  }
  callback();
  return 0;
}

void Container::CancelWait(uint64_t ticket) {
  WaitCallback dropped;  // Destroyed after the lock is released.
  absl::MutexLock lock(&mutex_);
  for (auto at = waiters_.begin(); at != waiters_.end(); ++at) {
    if (at->ticket != ticket) continue;
    dropped = std::move(at->callback);
    waiters_.erase(at);
    return;
  }
}

void Container::CancelAllWaits() {
  std::vector<Waiter> waiters;
  {
    absl::MutexLock lock(&mutex_);
    waiters.swap(waiters_);
  }
  WaitResult result;
  result.status = absl::CancelledError("the engine is stopping; ask again");
  Complete(std::move(waiters), result);
  execs_.CancelAllWaits();
}

std::vector<Container::Waiter> Container::Take(std::initializer_list<WaitKind> kinds) {
  std::vector<Waiter> taken;
  auto matches = [&](const Waiter& waiter) {
    return std::find(kinds.begin(), kinds.end(), waiter.kind) != kinds.end();
  };
  for (Waiter& waiter : waiters_) {
    if (matches(waiter)) taken.push_back(waiter);
  }
  waiters_.erase(std::remove_if(waiters_.begin(), waiters_.end(), matches), waiters_.end());
  return taken;
}

WaitResult Container::EndedResult() const {
  WaitResult result;
  result.exit_code = last_run_.exit_code();
  result.error = last_run_.error();
  return result;
}

void Container::Complete(std::vector<Waiter> waiters, const WaitResult& result) {
  for (Waiter& waiter : waiters) waiter.callback(result);
}

}  // namespace gantry::engine
