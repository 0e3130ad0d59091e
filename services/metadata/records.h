// Small durable records of other processes, with revisions for optimistic writes.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gantry/metadata/v1/metadata.pb.h"
#include "google/protobuf/repeated_field.h"
#include "services/metadata/caller.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

// Thread-safe.
class Records {
 public:
  using Writes = google::protobuf::RepeatedPtrField<v1::RecordWrite>;

  explicit Records(Database& database) : database_(database) {}

  absl::StatusOr<v1::Record> Get(const Caller& caller, const std::string& bucket,
                                 const std::string& key) const;

  // Records after `after` (exclusive; empty: from the start), at most `limit` of them or about 4
  // MiB: callers page, so that no reader stays open while a client is slow.
  absl::StatusOr<std::vector<v1::Record>> List(const Caller& caller, const std::string& bucket,
                                               const std::string& prefix, const std::string& after,
                                               size_t limit) const;

  // All writes or none. Answers the new revisions, 0 for removed ones. Errors: FailedPrecondition,
  // AlreadyExists — naming bucket and key.
  absl::StatusOr<std::vector<uint64_t>> Commit(const Caller& caller, const Writes& writes);

  // Steps of larger mutations (Bundles).
  static absl::Status Check(const Writes& writes);
  static absl::StatusOr<std::vector<uint64_t>> CommitIn(Writer& writer, const Caller& caller,
                                                        const Writes& writes);
  static bool OnlyRemoves(const Writes& writes);

 private:
  Database& database_;
};

}  // namespace gantry::metadata
