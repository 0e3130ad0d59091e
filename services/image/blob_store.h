// The bytes of images on disk, by digest (docs/formats/content.md):
//
//   <root>/blobs/sha256/<hex>          committed, never changed
//   <root>/ingests/<backend id>/data   being written; kept over a restart and continued
//
// Who may see a blob, and what an ingest is for, is gantry-metadata's business. A blob is made
// visible there only after its bytes are durable here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lib/archive/sha256.h"
#include "lib/base/digest.h"
#include "lib/sys/unique_fd.h"

namespace gantry::image {

class BlobStore;

// One ingest, held by one writer at a time; destruction lets go of it and keeps its bytes.
// Thread-compatible.
class Ingest {
 public:
  ~Ingest();
  Ingest(const Ingest&) = delete;
  Ingest& operator=(const Ingest&) = delete;

  uint64_t offset() const { return offset_; }
  Digest digest() const { return hash_.digest(); }  // Of the bytes so far.

  // Errors: ResourceExhausted — the disk is full; the bytes before stay good.
  absl::Status Append(absl::string_view bytes);

  // Starts over.
  absl::Status Truncate();

  // The bytes written so far, for reading (a descriptor of its own, at offset 0).
  absl::StatusOr<sys::UniqueFd> OpenForReading() const;

  // Makes the bytes a blob: syncs, renames, syncs the directory, then calls `record`, which makes
  // it known to metadata. No collection of this digest can come between. The ingest ends with OK
  // and AlreadyExists. When `record` says no, the ingest is as before. When nobody knows what it
  // did (Unavailable, DeadlineExceeded …) the bytes stay a blob, since it may be recorded, and the
  // ingest is empty: metadata knows what of the two is garbage, and tells. Errors: DataLoss — the
  // bytes are not those of `expected`; what `record` said.
  absl::Status Commit(const Digest& expected, const std::function<absl::Status()>& record);

 private:
  friend class BlobStore;
  Ingest(BlobStore& store, std::string id) : store_(store), id_(std::move(id)) {}
  absl::Status Load();

  BlobStore& store_;
  const std::string id_;
  sys::UniqueFd data_;
  uint64_t offset_ = 0;
  archive::Sha256 hash_;
};

struct IngestState {
  uint64_t offset = 0;
  absl::Time updated_at;
};

// Thread-safe.
class BlobStore {
 public:
  // Opens or makes the store in `root`.
  static absl::StatusOr<std::unique_ptr<BlobStore>> Open(const std::string& root);

  // Errors: NotFound.
  absl::StatusOr<sys::UniqueFd> OpenBlob(const Digest& digest, uint64_t* size_bytes) const;
  // Errors: NotFound; ResourceExhausted — larger than `limit`; DataLoss — the bytes have changed.
  absl::StatusOr<std::string> ReadBlob(const Digest& digest, size_t limit) const;
  absl::StatusOr<uint64_t> BlobSize(const Digest& digest) const;
  absl::StatusOr<std::vector<Digest>> ListBlobs() const;

  // Opens the ingest, making it when it is new; the hash of bytes from before is computed again.
  // Errors: Unavailable — another writer holds it.
  absl::StatusOr<std::unique_ptr<Ingest>> OpenIngest(const std::string& backend_id);
  absl::StatusOr<IngestState> StatIngest(const std::string& backend_id) const;
  // Fine when it is not there. Errors: Unavailable — a writer holds it.
  absl::Status RemoveIngest(const std::string& backend_id);
  // Removes an ingest that metadata has no record of: now, or as soon as its writer lets go of it.
  absl::Status DropIngest(const std::string& backend_id);
  absl::StatusOr<std::vector<std::string>> ListIngests() const;

  // Runs `decide` (which asks metadata) and, when that is OK, removes the blob's bytes and runs
  // `done`. A commit of the same digest waits meanwhile, and the other way round.
  absl::Status RemoveBlob(const Digest& digest, const std::function<absl::Status()>& decide,
                          const std::function<absl::Status()>& done);

  // Runs `record` while nobody can remove the bytes of `digest`. Errors: NotFound — no such bytes.
  absl::Status WithBlob(const Digest& digest,
                        const std::function<absl::Status(uint64_t size_bytes)>& record);

 private:
  friend class Ingest;
  explicit BlobStore(std::string root);

  std::string BlobPath(const Digest& digest) const;
  std::string IngestPath(const std::string& backend_id) const;
  absl::Status Sync(int fd, absl::string_view what);
  void LetGo(const std::string& backend_id);

  // Marks `key` as taken until destruction, waiting for the one who has it.
  class Hold;

  const std::string root_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_set<std::string> held_digests_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<std::string> held_ingests_ ABSL_GUARDED_BY(mutex_);
  // Of the held ones: to be removed when they are let go of.
  absl::flat_hash_set<std::string> dropped_ingests_ ABSL_GUARDED_BY(mutex_);
  // After a failed fsync the kernel may have dropped pages and forgotten: nothing more is committed
  // (SECURITY-RULES 39).
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gantry::image
