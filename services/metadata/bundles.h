// Whole objects of tier 1 in one durable write each: a container with its snapshot and records.
#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "gantry/metadata/v1/metadata.pb.h"
#include "services/metadata/caller.h"
#include "services/metadata/containers.h"
#include "services/metadata/database.h"
#include "services/metadata/records.h"
#include "services/metadata/snapshots.h"

namespace gantry::metadata {

// Thread-safe.
class Bundles {
 public:
  Bundles(Database& database, Snapshots& snapshots, BackendSweeper& sweeper,
          std::function<void()> on_garbage)
      : database_(database),
        snapshots_(snapshots),
        sweeper_(sweeper),
        on_garbage_(std::move(on_garbage)) {}

  // After an error nothing is left. Errors: as Containers::Create, Snapshots::Create,
  // Records::Commit; Aborted — the expected image has another target, or is gone.
  absl::StatusOr<v1::CreateContainerResponse> CreateContainer(
      const Caller& caller, const v1::CreateContainerRequest& request);

  // What is gone already is no error. Errors: FailedPrecondition — the snapshot has children, or a
  // record has another revision.
  absl::Status DeleteContainer(const Caller& caller, const v1::DeleteContainerRequest& request);

 private:
  Database& database_;
  Snapshots& snapshots_;
  BackendSweeper& sweeper_;
  std::function<void()> on_garbage_;
};

}  // namespace gantry::metadata
