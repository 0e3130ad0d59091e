// Garbage collection: mark and sweep, soon after a deletion, in a thread of its own.
//
// A run marks over a reader's snapshot while writers go on. Only when it found garbage does it
// write, and marks again inside that transaction if any reference changed meanwhile: nothing that
// came back into use is ever swept. Records go in one transaction; layers go to the sweeper and
// blobs to gantry-image after it.
//
// Deletions are coalesced: runs follow one another only after a pause of fifty times their own
// length (at most 10 s), unless somebody waits for one. A run is also made when a lease, an ingest
// or an image expires.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/metadata/backend_sweeper.h"
#include "services/metadata/blob_garbage.h"
#include "services/metadata/database.h"
#include "services/metadata/reference_graph.h"

namespace gantry::metadata {

struct Collected {
  struct Item {
    GraphObject object;
    std::string reason;
  };
  std::vector<Item> removed;
  std::vector<Item> kept;  // Plans only.
};

// Thread-safe.
class Collector {
 public:
  using Clock = std::function<absl::Time()>;

  Collector(Database& database, BackendSweeper& sweeper, BlobGarbage& blobs,
            Clock clock = absl::Now);
  ~Collector();
  void Start();
  void Stop();

  // Called with every finished run's length and what it removed. Set once, before Start.
  void OnRun(std::function<void(absl::Duration, const Collected&)> listener) {
    on_run_ = std::move(listener);
  }

  // Something may have become garbage.
  void MarkDirty();

  // A run that begins after this call, waited for; layers are gone too unless their snapshotter
  // does not answer. Errors: DeadlineExceeded; what the run failed with.
  absl::StatusOr<std::shared_ptr<const Collected>> Collect(absl::Time deadline);

  // What a run would do now.
  absl::StatusOr<Collected> Plan() const;

 private:
  void Loop();
  absl::StatusOr<Collected> Run(absl::Time* next_expiry);
  absl::Status Sweep(Writer& writer, const ReferenceGraph& graph, Collected& collected) const;

  Database& database_;
  BackendSweeper& sweeper_;
  BlobGarbage& blobs_;
  const Clock clock_;
  std::function<void(absl::Duration, const Collected&)> on_run_ = [](absl::Duration,
                                                                     const Collected&) {};

  absl::Mutex mutex_;
  bool dirty_ ABSL_GUARDED_BY(mutex_) = true;  // A start looks once.
  uint64_t requested_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time not_before_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time next_expiry_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::StatusOr<std::shared_ptr<const Collected>> last_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace gantry::metadata
