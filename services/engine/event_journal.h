// What the engine tells the world: its events, on their way into the journal of gantry-metadata.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "containerd/types/types.pb.h"
#include "gantry/engine/v1/engine.pb.h"
#include "services/engine/executor.h"
#include "services/engine/metadata_client.h"

namespace gantry::engine {

// Events are told after the fact, so nobody waits for them: Add only queues. What gathers within a
// few milliseconds is written at once, in order, behind everybody's back; while metadata is away
// the events wait for it, the oldest giving way beyond a limit. A crash of the engine loses what
// was queued; the ends of containers are told again by the recovery that finds them. Thread-safe.
class EventJournal {
 public:
  EventJournal(MetadataClient& metadata, Executor& executor, std::string namespace_name)
      : metadata_(metadata), executor_(executor), namespace_(std::move(namespace_name)) {}

  // Labels of over 64 KiB are left out: an event is for reading.
  void Add(v1::Event event, absl::Time at);

  // Writes what is queued, once, on the caller's thread: the last act of a stop.
  void Flush();

 private:
  // The oldest that fit into one call; `dropped` is how many had given way by then.
  std::vector<containerd::types::Envelope> NextBatch(uint64_t* dropped) const;
  void Write();
  void ScheduleWrite(absl::Duration delay) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  MetadataClient& metadata_;
  Executor& executor_;
  const std::string namespace_;
  mutable absl::Mutex mutex_;
  std::deque<containerd::types::Envelope> queue_ ABSL_GUARDED_BY(mutex_);
  uint64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;  // From the front, since the engine started.
  bool scheduled_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gantry::engine
