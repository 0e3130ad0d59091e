#include "shim/sandbox.h"

#include <signal.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/json/json.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"

namespace gantry::shim {
namespace {

// A daemon may hand over a sandbox without a specification, or with an empty one.
bool ConfiguresProcess(const std::string& bundle) {
  const absl::StatusOr<std::string> config = sys::ReadFile(absl::StrCat(bundle, "/config.json"));
  if (!config.ok()) return false;
  const absl::StatusOr<json::Document> document = json::Document::Parse(*config);
  return document.ok() && document->root().Find("process").has_value();
}

}  // namespace

Sandbox::Sandbox(sys::EventLoop& loop, Reaper& reaper, std::string ns, std::string seccomp_cache,
                 CreateSandboxRequest request)
    : loop_(loop), request_(std::move(request)) {
  status_.created_at = absl::Now();
  if (!ConfiguresProcess(request_.bundle)) return;
  process_ = std::make_unique<Container>(loop, reaper, std::move(ns), std::move(seccomp_cache),
                                         [](const Event&) {});
}

Sandbox::~Sandbox() {
  *alive_ = false;
  loop_.Cancel(kill_timer_);
  for (const auto& waiter : waiters_) {
    waiter(absl::NotFoundError(absl::StrCat("sandbox '", id(), "' was removed")));
  }
}

const cgroup::Cgroup* Sandbox::cgroup() const {
  return process_ == nullptr ? nullptr : process_->cgroup();
}

void Sandbox::Create(Done done) {
  if (const absl::Status status = FAILPOINT("shim.sandbox.create"); !status.ok()) {
    return done(status);
  }
  if (process_ == nullptr) return done(absl::OkStatus());
  CreateTaskRequest task;
  task.id = request_.id;
  task.bundle = request_.bundle;
  task.rootfs = request_.rootfs;
  task.options = request_.options;
  process_->Create(std::move(task), [done](const absl::StatusOr<Container::Started>& started) {
    done(started.status());
  });
}

void Sandbox::Start(DoneWith<Status> done) {
  if (status_.state != State::kCreated) {
    return done(absl::FailedPreconditionError(
        absl::StrCat("start sandbox '", id(), "': it was started before; it can be started once")));
  }
  if (process_ == nullptr) {
    status_.state = State::kReady;
    status_.pid = ::getpid();
    return done(status_);
  }
  process_->Start("", [this, done](const absl::StatusOr<Container::Started>& started) {
    if (!started.ok()) return done(started.status());
    status_.state = State::kReady;
    status_.pid = started->pid;
    process_->Wait("", [this, alive = alive_](const absl::StatusOr<ProcessExit>& exit) {
      if (*alive) OnEnd(exit);
    });
    done(status_);
  });
}

void Sandbox::OnEnd(const absl::StatusOr<ProcessExit>& exit) {
  if (status_.state == State::kNotReady) return;
  status_.state = State::kNotReady;
  exit_ = exit.ok() ? *exit : ProcessExit();
  if (exit_.time == absl::InfinitePast()) exit_.time = absl::Now();
  status_.exited_at = exit_.time;
  loop_.Cancel(std::exchange(kill_timer_, 0));
  std::vector<DoneWith<ProcessExit>> waiters;
  waiters.swap(waiters_);
  for (const auto& waiter : waiters) waiter(exit_);
}

void Sandbox::Stop(absl::Duration patience, Done done) {
  if (const absl::Status status = FAILPOINT("shim.sandbox.stop"); !status.ok()) {
    return done(status);
  }
  if (status_.state == State::kNotReady) return done(absl::OkStatus());
  if (process_ == nullptr || status_.state == State::kCreated) {
    // Nothing runs; the waiting init of one that was never started goes with Remove.
    OnEnd(ProcessExit());
    return done(absl::OkStatus());
  }
  Wait([done](const absl::StatusOr<ProcessExit>& exit) { done(exit.status()); });
  const auto kill = [this](int signal) {
    process_->Kill("", signal, /*all=*/false, [this, signal](const absl::Status& status) {
      if (!status.ok() && !absl::IsNotFound(status)) {
        log::Warning("could not signal a sandbox",
                     {{"sandbox", id()}, {"signal", signal}, {"status", status}});
      }
    });
  };
  if (patience <= absl::ZeroDuration()) return kill(SIGKILL);
  loop_.Cancel(kill_timer_);
  kill_timer_ = loop_.After(patience, [this, kill] {
    kill_timer_ = 0;
    kill(SIGKILL);
  });
  kill(SIGTERM);
}

void Sandbox::Wait(DoneWith<ProcessExit> done) {
  if (status_.state == State::kNotReady) return done(exit_);
  waiters_.push_back(std::move(done));
}

void Sandbox::Remove(Done done) {
  if (process_ == nullptr) {
    OnEnd(ProcessExit());
    return done(absl::OkStatus());
  }
  process_->End([this, done](const absl::StatusOr<ProcessExit>& exit) {
    if (exit.ok()) OnEnd(exit);
    done(exit.status());
  });
}

}  // namespace gantry::shim
