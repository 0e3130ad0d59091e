#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "lib/base/status.h"
#include "lib/sys/errno.h"
#include "lib/sys/socket.h"
#include "lib/ttrpc/client.h"

namespace gantry::ttrpc {
namespace {

// The background thread of all clients. Never destroyed: it may outlive main's statics.
class Reactor {
 public:
  static Reactor& Get() {
    static Reactor* const reactor = new Reactor();
    return *reactor;
  }

  sys::EventLoop& loop() { return *loop_; }  // Only on the thread.
  bool OnThread() const { return std::this_thread::get_id() == thread_id_; }
  bool ok() const { return loop_ != nullptr && wake_.ok(); }

  void Post(std::function<void()> task) {
    {
      absl::MutexLock lock(&mutex_);
      tasks_.push_back(std::move(task));
      if (tasks_.size() > 1) return;  // Whoever queued the first has woken it.
    }
    const uint64_t one = 1;
    (void)!::write(wake_.get(), &one, sizeof one);
  }

  // Runs `task` on the thread and returns when it is done.
  void Do(const std::function<void()>& task) {
    if (OnThread()) {
      task();
      return;
    }
    absl::Notification done;
    Post([&] {
      task();
      done.Notify();
    });
    done.WaitForNotification();
  }

 private:
  Reactor() : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    absl::StatusOr<std::unique_ptr<sys::EventLoop>> loop = sys::EventLoop::Create();
    if (!loop.ok() || !wake_.ok()) return;
    loop_ = *std::move(loop);
    if (!loop_->Add(wake_.get(), EPOLLIN, [this](uint32_t) { RunTasks(); }).ok()) {
      loop_.reset();
      return;
    }
    // Signals are for the threads of the program, not for this one.
    sigset_t all;
    sigset_t saved;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &saved);
    absl::Notification started;
    std::thread([this, &started] {
      ::pthread_setname_np(::pthread_self(), "ttrpc");
      thread_id_ = std::this_thread::get_id();
      started.Notify();
      for (;;) (void)loop_->RunOnce();
    }).detach();
    ::pthread_sigmask(SIG_SETMASK, &saved, nullptr);
    started.WaitForNotification();
  }

  void RunTasks() {
    uint64_t count;
    (void)!::read(wake_.get(), &count, sizeof count);
    std::vector<std::function<void()>> tasks;
    {
      absl::MutexLock lock(&mutex_);
      tasks.swap(tasks_);
    }
    for (const std::function<void()>& task : tasks) task();
  }

  sys::UniqueFd wake_;
  std::unique_ptr<sys::EventLoop> loop_;
  std::thread::id thread_id_;
  absl::Mutex mutex_;
  std::vector<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
};

struct Pending {
  Answer answer;
  sys::EventLoop::Timer timer = 0;
};

}  // namespace

struct Client::State : std::enable_shared_from_this<Client::State> {
  sys::UniqueFd socket;

  // Only on the background thread.
  sys::EventLoop::Watch watch = 0;
  FrameReader reader;
  std::function<void()> on_close;

  mutable absl::Mutex mutex;
  bool open ABSL_GUARDED_BY(mutex) = true;
  uint32_t next_stream ABSL_GUARDED_BY(mutex) = 1;
  std::map<uint32_t, Pending> pending ABSL_GUARDED_BY(mutex);
  std::string out ABSL_GUARDED_BY(mutex);  // Not yet taken by the kernel.

  // Queues the request and its `answer`. 0 and no answer kept: `*error` says why.
  uint32_t Begin(const Request& request, Answer* answer, absl::Status* error) {
    absl::MutexLock lock(&mutex);
    if (!open) {
      *error = absl::UnavailableError(absl::StrCat("call ", request.service, "/", request.method,
                                                   ": the peer has closed the "
                                                   "connection"));
      return 0;
    }
    absl::StatusOr<std::string> frame = EncodeRequestFrame(next_stream, request);
    if (!frame.ok()) {
      *error = frame.status();
      return 0;
    }
    const uint32_t stream = next_stream;
    next_stream += 2;
    pending[stream].answer = std::move(*answer);
    // Requests have to leave in the order of their ids, hence under the mutex; the socket never
    // blocks.
    const bool was_empty = out.empty();
    out += *frame;
    if (was_empty) FlushLocked();
    return stream;
  }

  void FlushLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    size_t sent = 0;
    while (sent < out.size()) {
      const ssize_t count =
          ::send(socket.get(), out.data() + sent, out.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) break;  // Full: below. Broken: the reading side notices.
      sent += static_cast<size_t>(count);
    }
    if (sent == out.size()) {
      std::string().swap(out);
      return;
    }
    out.erase(0, sent);
    if (errno == EAGAIN) {
      Reactor::Get().Post([self = shared_from_this()] {
        (void)Reactor::Get().loop().Modify(self->watch, EPOLLIN | EPOLLOUT);
      });
    }
  }

  // Removes and returns the answer of a call; empty when it has been answered.
  Answer Take(uint32_t stream) {
    absl::MutexLock lock(&mutex);
    const auto found = pending.find(stream);
    if (found == pending.end()) return nullptr;
    Pending taken = std::move(found->second);
    pending.erase(found);
    if (taken.timer != 0) {
      Reactor::Get().Post([timer = taken.timer] { Reactor::Get().loop().Cancel(timer); });
    }
    return std::move(taken.answer);
  }

  void OnEvents(uint32_t events) {
    if (events & EPOLLOUT) {
      absl::MutexLock lock(&mutex);
      (void)Reactor::Get().loop().Modify(watch, EPOLLIN);
      FlushLocked();
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
    const auto [space, size] = reader.Space();
    const ssize_t got = ::recv(socket.get(), space, size, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
      Fail(absl::UnavailableError("the peer has closed the connection"), true);
      return;
    }
    reader.Commit(static_cast<size_t>(got));
    FrameReader::Frame frame;
    while (watch != 0 && reader.Next(&frame)) {
      if (frame.header.type != static_cast<uint8_t>(MessageType::kResponse)) continue;
      // No answer waiting: its caller has given up.
      Answer answer = Take(frame.header.stream_id);
      if (!answer) continue;
      if (frame.oversized) {
        answer(absl::ResourceExhaustedError("the answer is longer than ttrpc carries"));
      } else {
        answer(DecodeResponse(frame.body));
      }
    }
  }

  // Ends the connection; on the background thread.
  void Fail(const absl::Status& reason, bool notify) {
    if (watch == 0) return;
    Reactor::Get().loop().Remove(std::exchange(watch, 0));
    std::map<uint32_t, Pending> orphans;
    {
      absl::MutexLock lock(&mutex);
      open = false;
      orphans.swap(pending);
    }
    std::function<void()> callback = std::move(on_close);
    on_close = nullptr;
    for (auto& [stream, call] : orphans) {
      Reactor::Get().loop().Cancel(call.timer);
      call.answer(reason);
    }
    if (notify && callback) callback();
  }
};

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const std::string& path,
                                                        std::function<void()> on_close) {
  ASSIGN_OR_RETURN(sys::UniqueFd socket, sys::ConnectUnix(SocketPath(path)));
  return FromSocket(std::move(socket), std::move(on_close));
}

absl::StatusOr<std::unique_ptr<Client>> Client::FromSocket(sys::UniqueFd socket,
                                                           std::function<void()> on_close) {
  Reactor& reactor = Reactor::Get();
  if (!reactor.ok()) return absl::ResourceExhaustedError("start the ttrpc thread: no descriptors");
  auto state = std::make_shared<State>();
  state->socket = std::move(socket);
  state->on_close = std::move(on_close);
  absl::Status status;
  reactor.Do([&] {
    absl::StatusOr<sys::EventLoop::Watch> watch = reactor.loop().Add(
        state->socket.get(), EPOLLIN, [state](uint32_t events) { state->OnEvents(events); });
    status = watch.status();
    if (watch.ok()) state->watch = *watch;
  });
  RETURN_IF_ERROR(status);
  return std::unique_ptr<Client>(new Client(std::move(state)));
}

Client::~Client() {
  Reactor::Get().Do([this] {
    state_->Fail(absl::CancelledError("the client was closed"), /*notify=*/false);
    state_->socket.Reset();
  });
}

bool Client::connected() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->open;
}

absl::StatusOr<std::string> Client::Call(absl::string_view service, absl::string_view method,
                                         absl::string_view payload, const Metadata& metadata,
                                         absl::Duration timeout) {
  // Owned by both sides: the background thread notifies, and the caller may be gone the next
  // moment.
  struct Wait {
    absl::Notification done;
    absl::StatusOr<std::string> result = absl::UnknownError("not answered");
  };
  const auto wait = std::make_shared<Wait>();
  Request request{service, method, payload, 0, {metadata.begin(), metadata.end()}};
  if (timeout != absl::InfiniteDuration()) {
    request.timeout_nanos = absl::ToInt64Nanoseconds(timeout);
  }
  Answer answer = [wait](absl::StatusOr<std::string> result) {
    wait->result = std::move(result);
    wait->done.Notify();
  };
  absl::Status error;
  const uint32_t stream = state_->Begin(request, &answer, &error);
  if (stream == 0) return error;
  if (!wait->done.WaitForNotificationWithTimeout(timeout)) {
    if (state_->Take(stream)) {
      return absl::DeadlineExceededError(absl::StrCat(
          "call ", service, "/", method, ": no answer in ", absl::FormatDuration(timeout)));
    }
    wait->done.WaitForNotification();  // It is being answered at this moment.
  }
  return std::move(wait->result);
}

void Client::CallAsync(absl::string_view service, absl::string_view method,
                       absl::string_view payload, const Metadata& metadata, absl::Duration timeout,
                       Answer answer) {
  Request request{service, method, payload, 0, {metadata.begin(), metadata.end()}};
  const bool limited = timeout != absl::InfiniteDuration();
  if (limited) request.timeout_nanos = absl::ToInt64Nanoseconds(timeout);
  absl::Status error;
  const uint32_t stream = state_->Begin(request, &answer, &error);
  if (stream == 0) {
    answer(error);
    return;
  }
  if (!limited) return;
  Reactor::Get().Post([state = state_, stream, timeout] {
    absl::MutexLock lock(&state->mutex);
    const auto found = state->pending.find(stream);
    if (found == state->pending.end()) return;
    found->second.timer = Reactor::Get().loop().After(timeout, [state, stream, timeout] {
      if (Answer late = state->Take(stream)) {
        late(absl::DeadlineExceededError(
            absl::StrCat("ttrpc call: no answer in ", absl::FormatDuration(timeout))));
      }
    });
  });
}

}  // namespace gantry::ttrpc
