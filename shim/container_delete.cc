// How an ended process, or the container, is taken away.
#include <signal.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/file.h"
#include "lib/sys/mount.h"
#include "shim/container.h"

namespace gantry::shim {
namespace {

constexpr absl::Duration kDrainPatience = absl::Seconds(10);

}  // namespace

void Container::Delete(const std::string& exec_id, DoneWith<ProcessExit> done) {
  operations_.Add({[this, exec_id, done] {
                     if (exec_id.empty()) {
                       DeleteInit(done);
                     } else {
                       DeleteExec(exec_id, done);
                     }
                   },
                   done});
}

void Container::End(DoneWith<ProcessExit> done) {
  const bool runs = init_.status == TaskStatus::kRunning || init_.status == TaskStatus::kPaused ||
                    init_.status == TaskStatus::kPausing;
  if (!runs) return Delete("", std::move(done));
  Wait("", [this, done, alive = alive_](const absl::StatusOr<ProcessExit>& exit) {
    if (!exit.ok() || !*alive) return done(exit);
    Delete("", done);
  });
  Kill("", SIGKILL, /*all=*/true, [this](const absl::Status& status) {
    if (!status.ok() && !absl::IsNotFound(status)) {
      log::Warning("could not kill a container", {{"container", id()}, {"status", status}});
    }
  });
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
    operations_.Finish();
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
    operations_.Finish();
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
    operations_.Finish();
    return;
  }
  const auto finish = [this, done](const absl::Status& deleted) {
    if (!deleted.ok()) {
      done(deleted);
      operations_.Finish();
      return;
    }
    absl::Status unmounted = FAILPOINT("shim.delete.before_unmount");
    if (unmounted.ok() && mounted_) unmounted = sys::UnmountTree(rootfs_);
    if (!unmounted.ok()) {
      done(unmounted);
      operations_.Finish();
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
    operations_.Finish();
  });
}

}  // namespace gantry::shim
