// Layered file systems, handed out as mounts.
//
// A snapshot is a directory of changes on top of a parent. It is
//   active     writable; made by Prepare, ends with Commit or Remove;
//   view       read-only, made by View to look at a committed snapshot;
//   committed  read-only for ever; made by Commit; the only kind that may be a parent.
// Keys of active snapshots and views and names of committed ones share one name space and are
// opaque: behind gantry-metadata or containerd they read `namespace/seq/key`.
//
// Nobody mounts anything here: Prepare, View and GetMounts answer a list of mounts as data, and
// whoever needs the file system mounts it (sys::MountAll).
//
// Life of an image layer:  Prepare(key, parent) -> unpack into the mounts -> Commit(key, chain id).
// Life of a container:     Prepare(id, chain id) -> run -> Remove(id).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lib/sys/mount.h"

namespace gantry::snapshotter {

enum class Kind { kView, kActive, kCommitted };

// "view", "active", "committed".
const char* KindName(Kind kind);

using Labels = std::map<std::string, std::string>;

struct Info {
  std::string name;    // Key or name.
  std::string parent;  // Empty: none.
  Kind kind = Kind::kActive;
  Labels labels;
  absl::Time created_at;
  absl::Time updated_at;
};

// Disk space of one snapshot without its parents.
struct Usage {
  uint64_t bytes = 0;
  uint64_t inodes = 0;
};

// A change of labels: all are replaced, or, with `paths` (label keys), only those; a key in `paths`
// that is not in `labels` is removed.
struct LabelChange {
  bool replace_all = true;
  std::vector<std::string> paths;
  Labels labels;
};

using Mounts = std::vector<sys::MountSpec>;

// Thread-safe. After an error nothing has changed. Errors of all methods: NotFound — no such
// snapshot; Unavailable — another call works on this snapshot now; DataLoss — its record or its
// parent is damaged.
class Snapshotter {
 public:
  virtual ~Snapshotter() = default;

  // Errors: AlreadyExists — the key is taken; NotFound — no such parent; InvalidArgument — the
  // parent is not committed; FailedPrecondition — the chain is too deep; ResourceExhausted — disk
  // full. Survives a crash of the process at once, and a power failure about a second later or when
  // the caller syncs: a record lost before that is missing, never half there.
  virtual absl::StatusOr<Mounts> Prepare(const std::string& key, const std::string& parent,
                                         const Labels& labels) = 0;
  virtual absl::StatusOr<Mounts> View(const std::string& key, const std::string& parent,
                                      const Labels& labels) = 0;

  // Errors: FailedPrecondition — it is committed.
  virtual absl::StatusOr<Mounts> GetMounts(const std::string& key) = 0;

  // Turns the active snapshot `key` into the committed `name`; layer and record are on the disk
  // when this returns. Empty labels keep those of the key. `parent`, when not empty, becomes the
  // parent of a snapshot that was prepared without one (rebase: layers unpacked side by side).
  // Errors: AlreadyExists — the name is taken; FailedPrecondition — not active, or has another
  // parent.
  virtual absl::Status Commit(const std::string& key, const std::string& name, const Labels& labels,
                              const std::string& parent) = 0;

  // The name is free at once, the disk space soon (Cleanup waits for it).
  // Errors: FailedPrecondition — it has children.
  virtual absl::Status Remove(const std::string& key) = 0;

  virtual absl::StatusOr<Info> Stat(const std::string& key) = 0;
  virtual absl::StatusOr<Info> Update(const std::string& key, const LabelChange& change) = 0;
  virtual std::vector<Info> List() = 0;  // By name.
  virtual absl::StatusOr<Usage> GetUsage(const std::string& key) = 0;

  // Frees what removed snapshots and interrupted calls left behind, and waits for it.
  // Errors: DeadlineExceeded.
  virtual absl::Status Cleanup(absl::Duration timeout) = 0;
};

}  // namespace gantry::snapshotter
