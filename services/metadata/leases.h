// Leases: what they hold is not garbage.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "containerd/services/leases/v1/leases.pb.h"
#include "services/metadata/caller.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

// Thread-safe.
class Leases {
 public:
  using Lease = containerd::services::leases::v1::Lease;
  using Resource = containerd::services::leases::v1::Resource;

  Leases(Database& database, std::function<void()> on_garbage)
      : database_(database), on_garbage_(std::move(on_garbage)) {}

  // An empty id lets the store choose one.
  absl::StatusOr<Lease> Create(const Caller& caller, const std::string& id,
                               const google::protobuf::Map<std::string, std::string>& labels);
  absl::Status Delete(const Caller& caller, const std::string& id);
  absl::StatusOr<std::vector<Lease>> List(const Caller& caller,
                                          const std::vector<std::string>& filters) const;

  absl::Status AddResource(const Caller& caller, const std::string& id, const Resource& resource);
  absl::Status DeleteResource(const Caller& caller, const std::string& id,
                              const Resource& resource);
  absl::StatusOr<std::vector<Resource>> ListResources(const Caller& caller,
                                                      const std::string& id) const;

  // For collection: the lease and what it holds. False when it was not there.
  static absl::StatusOr<bool> DeleteIn(Writer& writer, const Caller& caller, const std::string& id);

 private:
  Database& database_;
  std::function<void()> on_garbage_;
};

}  // namespace gantry::metadata
