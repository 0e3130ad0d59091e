// Deletes the bytes of blobs that no namespace records any more, and of ingests that ended without
// a blob, as metadata says; at start also what a killed process has left.
//
// Everything on the disk is compared with metadata whenever the watch begins: at start, after
// metadata was away, after something could not be deleted, and every ten minutes.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/rpc/audit.h"
#include "services/image/blob_store.h"
#include "services/image/metadata.h"

namespace gantry::image {

// One background thread, which connects again whenever metadata was away, with a pause that doubles
// while that does not help. Thread-safe.
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
  absl::Status Watch();
  absl::Status EndForgottenLeases();
  void RemoveBlob(const Digest& digest);
  void RemoveIngest(const std::string& backend_id);
  void Postpone(absl::string_view what, const std::string& name, const absl::Status& why);
  bool Pause(absl::Duration length);

  BlobStore& blobs_;
  Metadata& metadata_;
  std::thread thread_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // The thread's own.
  bool leases_ended_ = false;
  absl::Status postponed_;  // Why the watch was ended before its time.
  std::function<void()> stop_watch_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::image
