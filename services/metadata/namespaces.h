// Namespaces: one tenant each. A namespace exists from the first write into it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "containerd/services/namespaces/v1/namespace.pb.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

// Thread-safe.
class Namespaces {
 public:
  using Namespace = containerd::services::namespaces::v1::Namespace;

  explicit Namespaces(Database& database) : database_(database) {}

  // An unknown namespace has no labels.
  absl::StatusOr<Namespace> Get(const std::string& name) const;
  absl::StatusOr<std::vector<Namespace>> List(const std::string& filter) const;
  absl::StatusOr<Namespace> Create(const Namespace& wanted);

  // Mask paths: labels, labels.KEY; none: all labels. Errors: NotFound; InvalidArgument.
  absl::StatusOr<Namespace> Update(const Namespace& wanted, const std::vector<std::string>& mask);

  // Its leases go with it. Errors: NotFound; FailedPrecondition — naming what is left in it.
  absl::Status Delete(const std::string& name);

 private:
  Database& database_;
};

}  // namespace gantry::metadata
