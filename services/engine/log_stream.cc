#include "services/engine/log_stream.h"

#include <utility>

#include "lib/base/status.h"
#include "lib/rpc/status.h"

namespace gantry::engine {

grpc::ServerWriteReactor<v1::LogEntry>* LogStream::Begin(Executor& executor,
                                                         DirectoryWatcher& watcher,
                                                         std::shared_ptr<Container> container,
                                                         std::string path, LogOptions options,
                                                         bool follow) {
  std::shared_ptr<LogStream> stream(
      new LogStream(executor, watcher, std::move(container), std::move(path), options, follow));
  stream->self_ = stream;
  {
    absl::MutexLock lock(&stream->mutex_);
    stream->busy_ = true;
  }
  // Finding the place to begin may read much: not on gRPC's thread. When the executor is stopped,
  // the server is too, and cancels.
  executor.Run([stream] { stream->Open(); });
  return stream.get();
}

LogStream::LogStream(Executor& executor, DirectoryWatcher& watcher,
                     std::shared_ptr<Container> container, std::string path, LogOptions options,
                     bool follow)
    : executor_(executor),
      watcher_(watcher),
      container_(std::move(container)),
      path_(std::move(path)),
      options_(options),
      follow_(follow) {}

void LogStream::Open() {
  // Asked before reading: when it says so now, everything is in the files.
  const bool waits = follow_ && container_->needs_cleanup();
  if (waits) {
    auto self = shared_from_this();
    const uint64_t ticket = container_->WaitForLogsComplete([self] {
      {
        absl::MutexLock lock(&self->mutex_);
        self->complete_ = true;
      }
      self->Wake();
    });
    absl::MutexLock lock(&mutex_);
    run_wait_ = ticket;
  } else {
    absl::MutexLock lock(&mutex_);
    complete_ = true;
  }
  absl::StatusOr<LogReader> reader = LogReader::Open(path_, options_);
  if (!reader.ok()) return End(reader.status());
  reader_ = std::make_unique<LogReader>(*std::move(reader));
  Pump();
}

void LogStream::Wake() {
  {
    absl::MutexLock lock(&mutex_);
    if (ended_) return;
    if (busy_) {
      again_ = true;
      return;
    }
    busy_ = true;
  }
  auto self = shared_from_this();
  executor_.Run([self] { self->Pump(); });
}

void LogStream::Pump() {
  while (true) {
    bool complete = false;
    bool cancelled = false;
    {
      absl::MutexLock lock(&mutex_);
      complete = complete_;
      cancelled = cancelled_;
      again_ = false;
    }
    if (cancelled) return End(absl::CancelledError("the caller has gone"));
    absl::StatusOr<bool> got = reader_->Next(&entry_);
    if (!got.ok()) return End(got.status());
    if (*got) {
      armed_ = false;
      StartWrite(&entry_);
      return;  // Busy until OnWriteDone.
    }
    // Whoever follows ends when the run was over before this last look.
    if (complete || reader_->done()) return End(absl::OkStatus());
    if (!armed_) {
      // Armed before another look, so that nothing falls between the two.
      auto self = shared_from_this();
      absl::StatusOr<uint64_t> watch =
          watcher_.Watch(path_.substr(0, path_.rfind('/')), [self] { self->Wake(); });
      if (!watch.ok()) return End(watch.status());
      armed_ = true;
      absl::MutexLock lock(&mutex_);
      watch_ = *watch;
      continue;
    }
    armed_ = false;  // The watch calls once; the next round arms anew.
    absl::MutexLock lock(&mutex_);
    if (again_ || cancelled_) continue;
    busy_ = false;
    return;
  }
}

void LogStream::OnWriteDone(bool ok) {
  if (!ok) {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
  }
  Pump();
}

void LogStream::OnCancel() {
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
  }
  Wake();
}

void LogStream::End(const absl::Status& status) {
  uint64_t watch = 0, run_wait = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (ended_) return;
    ended_ = true;
    watch = watch_;
    run_wait = run_wait_;
  }
  if (watch != 0) watcher_.Cancel(watch);
  if (run_wait != 0) container_->CancelWait(run_wait);
  Finish(rpc::ToGrpcStatus(status));
}

void LogStream::OnDone() {
  // Callbacks that are being called just now hold the object, too.
  std::shared_ptr<LogStream> last = std::move(self_);
}

}  // namespace gantry::engine
