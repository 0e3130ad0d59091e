#include "services/task/loop_thread.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "absl/synchronization/notification.h"
#include "lib/base/status.h"
#include "lib/log/log.h"
#include "lib/sys/errno.h"

namespace gantry::task {

absl::StatusOr<std::unique_ptr<LoopThread>> LoopThread::Start() {
  ASSIGN_OR_RETURN(std::unique_ptr<sys::EventLoop> loop, sys::EventLoop::Create());
  sys::UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.ok()) return sys::ErrnoError(errno, "make an eventfd");
  std::unique_ptr<LoopThread> self(new LoopThread(std::move(loop), std::move(wake)));
  RETURN_IF_ERROR(
      self->loop_
          ->Add(self->wake_.get(), EPOLLIN, [raw = self.get()](uint32_t) { raw->RunPosted(); })
          .status());
  self->thread_ = std::thread([raw = self.get()] {
    if (absl::Status ended = raw->loop_->Run(); !ended.ok()) {
      log::Error("event loop ended", {{"error", ended}});
    }
  });
  return self;
}

LoopThread::~LoopThread() {
  Post([this] { loop_->Stop(); });
  thread_.join();
}

void LoopThread::Post(std::function<void()> work) {
  {
    absl::MutexLock lock(&mutex_);
    posted_.push_back(std::move(work));
  }
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
}

void LoopThread::Do(const std::function<void()>& work) {
  absl::Notification done;
  Post([&] {
    work();
    done.Notify();
  });
  done.WaitForNotification();
}

void LoopThread::RunPosted() {
  uint64_t count = 0;
  (void)!::read(wake_.get(), &count, sizeof count);
  std::vector<std::function<void()>> work;
  {
    absl::MutexLock lock(&mutex_);
    work.swap(posted_);
  }
  for (const std::function<void()>& one : work) one();
}

}  // namespace gantry::task
