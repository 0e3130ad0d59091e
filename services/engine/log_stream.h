// The answer of one Logs call.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "gantry/engine/v1/engine.pb.h"
#include "services/engine/container.h"
#include "services/engine/directory_watcher.h"
#include "services/engine/executor.h"
#include "services/engine/log_reader.h"

namespace gantry::engine {

// Sends entries one by one; while there are none and the caller follows, it costs no thread: the
// watcher wakes it when the files change, and the container when its run is over. Keeps itself
// alive until gRPC is done with it. Thread-safe, as gRPC, the watcher and the container call it
// from their threads.
class LogStream final : public grpc::ServerWriteReactor<v1::LogEntry>,
                        public std::enable_shared_from_this<LogStream> {
 public:
  // Starts it; the result belongs to gRPC.
  static grpc::ServerWriteReactor<v1::LogEntry>* Begin(Executor& executor,
                                                       DirectoryWatcher& watcher,
                                                       std::shared_ptr<Container> container,
                                                       std::string path, LogOptions options,
                                                       bool follow);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  using ContainerPtr = std::shared_ptr<Container>;

  LogStream(Executor& executor, DirectoryWatcher& watcher, ContainerPtr container, std::string path,
            LogOptions options, bool follow);
  void Open();
  // Something may be there to send: sends the next entry, or waits, or ends. One thread at a time.
  void Wake();
  void Pump();
  void End(const absl::Status& status);

  Executor& executor_;
  DirectoryWatcher& watcher_;
  const ContainerPtr container_;
  const std::string path_;
  const LogOptions options_;
  const bool follow_;
  std::shared_ptr<LogStream> self_;  // Until OnDone.

  absl::Mutex mutex_;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;   // A thread pumps, or a write is under way.
  bool again_ ABSL_GUARDED_BY(mutex_) = false;  // Woken meanwhile.
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool complete_ ABSL_GUARDED_BY(mutex_) = false;  // The run is over: what is there is all.
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t watch_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t run_wait_ ABSL_GUARDED_BY(mutex_) = 0;

  // Of the thread that is busy.
  std::unique_ptr<LogReader> reader_;
  v1::LogEntry entry_;
  bool armed_ = false;
};

}  // namespace gantry::engine
