#include "services/metadata/bundles.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/failpoint.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "services/metadata/images.h"
#include "services/metadata/labels.h"
#include "services/metadata/objects.h"

namespace gantry::metadata {
namespace {

absl::Status CheckImage(const Reader& reader, const Caller& caller,
                        const v1::CreateContainerRequest& request) {
  if (!request.has_expected_image()) return absl::OkStatus();
  const v1::ImageExpectation& image = request.expected_image();
  return Images::CheckTarget(reader, caller, image.name(), image.digest());
}

// Fails early what would fail in the transaction, so that no layer is made in vain.
absl::Status CheckFree(const Database& database, const Caller& caller,
                       const v1::CreateContainerRequest& request) {
  const std::string& id = request.container().id();
  ASSIGN_OR_RETURN(Reader reader, database.Read());
  RETURN_IF_ERROR(CheckImage(reader, caller, request));
  ASSIGN_OR_RETURN(auto present,
                   reader.Find(Table::kContainers, JoinKey({caller.namespace_name, id})));
  if (!present) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat("container '", id, "': already exists"));
}

}  // namespace

absl::StatusOr<v1::CreateContainerResponse> Bundles::CreateContainer(
    const Caller& caller, const v1::CreateContainerRequest& request) {
  RETURN_IF_ERROR(Containers::Check(request.container()));
  RETURN_IF_ERROR(Records::Check(request.records()));
  RETURN_IF_ERROR(CheckFree(database_, caller, request));

  std::optional<Snapshots::Prepared> prepared;
  if (!request.container().snapshot_key().empty()) {
    Snapshots::CreateRequest create;
    create.snapshotter = request.container().snapshotter();
    create.key = request.container().snapshot_key();
    create.parent = request.snapshot_parent();
    create.labels = request.snapshot_labels();
    ASSIGN_OR_RETURN(prepared, snapshots_.Prepare(caller, create));
    if (prepared->target) {
      return absl::AlreadyExistsError(
          absl::StrCat("snapshot '", prepared->place.key, "': already exists"));
    }
  }
  v1::CreateContainerResponse response;
  absl::Status recorded = FAILPOINT("metadata.bundles.before_create");
  if (recorded.ok()) {
    recorded = database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
      *response.mutable_container() = request.container();
      RETURN_IF_ERROR(CheckImage(writer, caller, request));
      ASSIGN_OR_RETURN(std::vector<uint64_t> revisions,
                       Records::CommitIn(writer, caller, request.records()));
      *response.mutable_revisions() = {revisions.begin(), revisions.end()};
      if (prepared) RETURN_IF_ERROR(snapshots_.RecordIn(writer, caller, *prepared));
      return Containers::CreateIn(writer, caller, *response.mutable_container());
    });
  }
  if (!recorded.ok()) {
    if (prepared) snapshots_.Undo(*prepared);
    return recorded;
  }
  if (prepared) {
    for (containerd::types::Mount& mount : prepared->mounts)
      *response.add_mounts() = std::move(mount);
  }
  return response;
}

absl::Status Bundles::DeleteContainer(const Caller& caller,
                                      const v1::DeleteContainerRequest& request) {
  RETURN_IF_ERROR(CheckIdentifier("container id", request.id()));
  RETURN_IF_ERROR(Records::Check(request.records()));
  const bool frees = Records::OnlyRemoves(request.records());
  std::string snapshotter, layer;
  RETURN_IF_ERROR(database_.Write(
      frees ? Database::Purpose::kFree : Database::Purpose::kGrow,
      [&](Writer& writer) -> absl::Status {
        layer.clear();
        RETURN_IF_ERROR(Records::CommitIn(writer, caller, request.records()).status());
        const std::string key = JoinKey({caller.namespace_name, request.id()});
        ASSIGN_OR_RETURN(auto container,
                         Load<Containers::Container>(writer, Table::kContainers, key));
        if (!container) return absl::OkStatus();
        RETURN_IF_ERROR(Containers::DeleteIn(writer, caller, request.id()));
        if (!request.remove_snapshot() || container->snapshot_key().empty())
          return absl::OkStatus();
        snapshotter = container->snapshotter();
        absl::StatusOr<std::string> removed = snapshots_.RemoveIn(
            writer, caller, {caller.namespace_name, snapshotter, container->snapshot_key()});
        if (absl::IsNotFound(removed.status())) return absl::OkStatus();
        RETURN_IF_ERROR(removed.status());
        layer = *std::move(removed);
        return absl::OkStatus();
      }));
  absl::Status hit = FAILPOINT("metadata.bundles.after_delete");
  if (!layer.empty()) sweeper_.Remove(snapshotter, {layer});
  on_garbage_();
  return hit;
}

}  // namespace gantry::metadata
