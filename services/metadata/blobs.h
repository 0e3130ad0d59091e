// Blob and ingest records: who may see which bytes. gantry-image owns the bytes.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gantry/metadata/v1/metadata.pb.h"
#include "services/metadata/blob_garbage.h"
#include "services/metadata/caller.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

// Thread-safe.
class Blobs {
 public:
  Blobs(Database& database, BlobGarbage& garbage, std::function<void()> on_garbage)
      : database_(database), garbage_(garbage), on_garbage_(std::move(on_garbage)) {}

  absl::StatusOr<v1::Blob> Get(const Caller& caller, const std::string& digest) const;

  // Blobs after `after` (exclusive), at most `limit`: callers page.
  absl::StatusOr<std::vector<v1::Blob>> List(const Caller& caller,
                                             const std::vector<std::string>& filters,
                                             const std::string& after, size_t limit) const;
  absl::StatusOr<v1::Blob> Update(const Caller& caller, const v1::UpdateBlobRequest& request);
  absl::Status Delete(const Caller& caller, const std::string& digest);

  absl::StatusOr<v1::BeginIngestResponse> BeginIngest(const Caller& caller,
                                                      const v1::BeginIngestRequest& request);
  absl::StatusOr<v1::Blob> CommitIngest(const Caller& caller,
                                        const v1::CommitIngestRequest& request);
  absl::StatusOr<std::string> AbortIngest(const Caller& caller, const std::string& ref);
  // Of all namespaces when `all`.
  absl::StatusOr<std::vector<v1::Ingest>> ListIngests(const Caller& caller, bool all) const;

  // For collection. False when it was not there.
  static absl::StatusOr<bool> DeleteBlobIn(Writer& writer, const std::string& namespace_name,
                                           const std::string& digest);

 private:
  Database& database_;
  BlobGarbage& garbage_;
  std::function<void()> on_garbage_;
};

}  // namespace gantry::metadata
