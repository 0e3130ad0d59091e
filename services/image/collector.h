// Deletes the bytes of blobs that no namespace records any more, as metadata says; and at start
// what a killed process has left.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/rpc/audit.h"
#include "services/image/blob_store.h"
#include "services/image/metadata.h"

namespace gantry::image {

// One background thread, which connects again whenever metadata was away. Thread-safe.
class Collector {
 public:
  Collector(BlobStore& blobs, Metadata& metadata) : blobs_(blobs), metadata_(metadata) {}
  ~Collector() { Stop(); }

  void Start();
  void Stop();

  // What is on disk without a record, and recorded without bytes.
  absl::Status Audit(rpc::AuditReport& report);

 private:
  void Run();
  absl::Status Repair();
  absl::Status RemoveOrphanedIngests();
  absl::Status EndForgottenLeases();
  void Remove(const Digest& digest);
  bool PauseBeforeRetry();

  BlobStore& blobs_;
  Metadata& metadata_;
  std::thread thread_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool repaired_ = false;  // The thread's own, as is the next.
  absl::Time swept_ingests_;
  std::function<void()> stop_watch_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::image
