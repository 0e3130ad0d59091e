// A snapshotter as metadata sees it: opaque keys, mounts as data (contracts 3.7).
//
// Keys have the form `namespace/number/name`; the number makes them unique for ever, so a late or
// repeated call can never hit another snapshot of the same name.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "containerd/services/snapshots/v1/snapshots.pb.h"
#include "containerd/types/types.pb.h"
#include "services/metadata/labels.h"

namespace gantry::metadata {

// Thread-safe. Calls block up to their deadline; Unavailable and DeadlineExceeded leave open
// whether the call had its effect.
class SnapshotterBackend {
 public:
  using Info = containerd::services::snapshots::v1::Info;
  using Kind = containerd::services::snapshots::v1::Kind;
  using Mounts = std::vector<containerd::types::Mount>;
  struct Usage {
    int64_t bytes = 0;
    int64_t inodes = 0;
  };

  virtual ~SnapshotterBackend() = default;

  // `kind` is ACTIVE (Prepare) or VIEW (View).
  virtual absl::StatusOr<Mounts> Create(const std::string& key, const std::string& parent,
                                        const Labels& labels, Kind kind) = 0;
  virtual absl::StatusOr<Mounts> GetMounts(const std::string& key) = 0;
  // `parent` only for snapshotters that can rebase; empty otherwise.
  virtual absl::Status Commit(const std::string& name, const std::string& key,
                              const std::string& parent, const Labels& labels) = 0;
  virtual absl::Status Remove(const std::string& key) = 0;
  virtual absl::StatusOr<Info> Stat(const std::string& key) = 0;
  virtual absl::StatusOr<Info> Update(const Info& info, const std::vector<std::string>& mask) = 0;
  virtual absl::StatusOr<std::vector<Info>> List(const std::vector<std::string>& filters) = 0;
  virtual absl::StatusOr<Usage> GetUsage(const std::string& key) = 0;
  virtual absl::Status Cleanup() = 0;
};

}  // namespace gantry::metadata
