// Container records: what a container is, not whether it runs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "containerd/services/containers/v1/containers.pb.h"
#include "services/metadata/caller.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

// Thread-safe.
class Containers {
 public:
  using Container = containerd::services::containers::v1::Container;

  // `on_garbage` is called after something may have become garbage.
  Containers(Database& database, std::function<void()> on_garbage)
      : database_(database), on_garbage_(std::move(on_garbage)) {}

  absl::StatusOr<Container> Get(const Caller& caller, const std::string& id) const;
  absl::StatusOr<std::vector<Container>> List(const Caller& caller,
                                              const std::vector<std::string>& filters) const;
  absl::StatusOr<Container> Create(const Caller& caller, const Container& wanted);

  // Without a mask labels, spec, extensions, image and snapshot key are replaced; the snapshotter
  // and the runtime's name must be the recorded ones then. Errors: NotFound; InvalidArgument.
  absl::StatusOr<Container> Update(const Caller& caller, const Container& wanted,
                                   const std::vector<std::string>& mask);
  absl::Status Delete(const Caller& caller, const std::string& id);

  // Steps of larger mutations (Bundles). Check is done by the caller before it writes.
  static absl::Status Check(const Container& container);
  static absl::Status CreateIn(Writer& writer, const Caller& caller, Container& container);
  static absl::Status DeleteIn(Writer& writer, const Caller& caller, const std::string& id);

 private:
  Database& database_;
  std::function<void()> on_garbage_;
};

}  // namespace gantry::metadata
