// Blobs and ingests nobody records any more, on their way to gantry-image, which deletes the bytes.
//
// A digest is offered to the watchers when its last record goes. A watcher that wants to delete
// claims it; the claim is decided between the mutations of the database, so it cannot slip between
// an ingest that counts on the blob and the record of it. While claimed, nobody is told that the
// bytes are there. An ingest needs no claim: its id is never used twice. gantry-image holds its own
// lock on the digest from "bytes in place" to "recorded", since an ingest that does not know its
// digest in advance cannot be seen here.
#pragma once

#include <deque>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

// Thread-safe.
class BlobGarbage {
 public:
  // What watches: one stream of gantry-image. Offers must not block.
  class Watcher {
   public:
    virtual ~Watcher() = default;
    virtual void OfferBlob(const std::string& digest) = 0;
    virtual void OfferIngest(const std::string& backend_id) = 0;
  };

  explicit BlobGarbage(Database& database) : database_(database) {}

  // Begins to watch: of what is known to the watcher, that without any record is offered at once. A
  // watcher that goes gives up all claims: gantry-image died or starts anew.
  absl::Status AddWatcher(Watcher* watcher, const std::vector<std::string>& known_digests,
                          const std::vector<std::string>& known_ingests);
  void RemoveWatcher(Watcher* watcher);

  // Offers digests that may have become garbage, and ingests whose record is gone.
  void Offer(const std::vector<std::string>& digests, const std::vector<std::string>& ingests);

  // Errors: FailedPrecondition — recorded again, or an ingest expects it.
  absl::Status Claim(const std::string& digest);
  void Release(const std::string& digest, bool deleted);

  // For mutations, which run one after the other.
  bool IsClaimed(const std::string& digest) const;

 private:
  Database& database_;
  mutable absl::Mutex mutex_;
  std::set<std::string> claims_ ABSL_GUARDED_BY(mutex_);
  std::set<Watcher*> watchers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gantry::metadata
