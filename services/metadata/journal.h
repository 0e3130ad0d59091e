// The event journal: every state change has a sequence number, and can be read again from a cursor.
//
// Events that metadata causes are written in the transaction that causes them; those of others
// (tasks) join the next group commit. Followers see an entry when it is durable and not before, so
// nobody ever acts on an event that a crash then takes back; the price is the one sync of the
// commit, 0.2 ms. Followers hold a cursor, not a queue: a slow one costs no memory, and is told so
// when retention has overtaken it.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "containerd/types/types.pb.h"
#include "lib/filter/filter.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

// Thread-safe.
class Journal {
 public:
  using Envelope = containerd::types::Envelope;

  struct Entry {
    uint64_t sequence = 0;
    Envelope envelope;
  };
  struct Range {
    uint64_t first = 0;  // 0: the journal is empty.
    uint64_t last = 0;
  };

  // One reader that waits for news. Calls come from the journal's thread, or from AddFollower when
  // the journal has stopped, and must not block.
  class Follower {
   public:
    virtual ~Follower() = default;
    virtual void OnNews() = 0;
    virtual void OnStop() = 0;
    // OnNews is called at this time too.
    virtual absl::Time WakeAt() const { return absl::InfiniteFuture(); }
  };

  explicit Journal(Database& database);
  ~Journal();
  void Stop();

  // Errors: InvalidArgument — no namespace, topic, time or event.
  absl::Status Append(const Envelope& envelope);
  // Several in one write and in their order: all or none.
  absl::Status Append(const std::vector<const Envelope*>& envelopes);

  // Up to `limit` durable entries after `after`. Errors: OutOfRange — entries after `after` were
  // dropped by retention; names the oldest kept. `after` 0 means from the oldest kept.
  absl::StatusOr<std::vector<Entry>> Read(uint64_t after, size_t limit) const;

  absl::StatusOr<Range> GetRange() const;
  uint64_t last_sequence() const { return database_.durable_sequence(); }

  // After RemoveFollower returns the follower is not called any more.
  void AddFollower(Follower* follower);
  void RemoveFollower(Follower* follower);

 private:
  void Loop();

  Database& database_;
  absl::Mutex mutex_;  // Held while followers are called.
  std::set<Follower*> followers_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;  // All followers have been told.

  absl::Mutex news_mutex_;  // After mutex_.
  uint64_t newest_ ABSL_GUARDED_BY(news_mutex_) = 0;
  bool changed_ ABSL_GUARDED_BY(news_mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(news_mutex_) = false;
  std::thread thread_;
};

// Whether an event matches: fields namespace, topic, event.<text field> (contracts 3.6).
bool MatchesEvent(const filter::Filter& filter, const containerd::types::Envelope& envelope);

}  // namespace gantry::metadata
