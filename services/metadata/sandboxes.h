// Sandbox records (pods): who they are; gantry-task runs them and publishes their events.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "containerd/types/types.pb.h"
#include "services/metadata/caller.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

// Thread-safe.
class Sandboxes {
 public:
  using Sandbox = containerd::types::Sandbox;

  Sandboxes(Database& database, std::function<void()> on_garbage)
      : database_(database), on_garbage_(std::move(on_garbage)) {}

  absl::StatusOr<Sandbox> Get(const Caller& caller, const std::string& id) const;
  absl::StatusOr<std::vector<Sandbox>> List(const Caller& caller,
                                            const std::vector<std::string>& filters) const;
  absl::StatusOr<Sandbox> Create(const Caller& caller, const Sandbox& wanted);

  // Fields: labels, labels.KEY, extensions, extensions.KEY, spec, runtime; none: all of these, and
  // the runtime's name must be the recorded one.
  absl::StatusOr<Sandbox> Update(const Caller& caller, const Sandbox& wanted,
                                 const std::vector<std::string>& fields);
  absl::Status Delete(const Caller& caller, const std::string& id);

 private:
  Database& database_;
  std::function<void()> on_garbage_;
};

}  // namespace gantry::metadata
