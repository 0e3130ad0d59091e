// Images: a name, labels and a descriptor, nothing else.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "containerd/services/images/v1/images.pb.h"
#include "services/metadata/caller.h"
#include "services/metadata/database.h"

namespace gantry::metadata {

// Thread-safe.
class Images {
 public:
  using Image = containerd::services::images::v1::Image;
  using Descriptor = containerd::types::Descriptor;

  Images(Database& database, std::function<void()> on_garbage)
      : database_(database), on_garbage_(std::move(on_garbage)) {}

  absl::StatusOr<Image> Get(const Caller& caller, const std::string& name) const;
  absl::StatusOr<std::vector<Image>> List(const Caller& caller,
                                          const std::vector<std::string>& filters) const;

  // `epoch` replaces the time of now in the record, for reproducible builds. An image that expires
  // (containerd.io/gc.expire) joins the caller's lease.
  absl::StatusOr<Image> Create(const Caller& caller, const Image& wanted,
                               std::optional<absl::Time> epoch);

  // Mask paths: labels, labels.KEY, annotations, annotations.KEY, target; none: everything.
  absl::StatusOr<Image> Update(const Caller& caller, const Image& wanted,
                               const std::vector<std::string>& mask,
                               std::optional<absl::Time> epoch);

  // With `target`: only while the image still points there. Errors: NotFound.
  absl::Status Delete(const Caller& caller, const std::string& name, const Descriptor* target);

  // Within a mutation that relies on what a name means. Errors: Aborted — it means something else.
  static absl::Status CheckTarget(const Reader& reader, const Caller& caller,
                                  absl::string_view name, absl::string_view digest);

  // For collection.
  static absl::Status DeleteIn(Writer& writer, const Caller& caller, const std::string& name);

 private:
  Database& database_;
  std::function<void()> on_garbage_;
};

}  // namespace gantry::metadata
