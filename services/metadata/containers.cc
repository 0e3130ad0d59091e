#include "services/metadata/containers.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "containerd/events/events.pb.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "services/metadata/labels.h"
#include "services/metadata/listing.h"
#include "services/metadata/objects.h"

namespace gantry::metadata {
namespace {

using Container = Containers::Container;

constexpr size_t kMaxContainerBytes = 8 << 20;
constexpr size_t kMaxNameBytes = 512;

std::string KeyOf(const Caller& caller, absl::string_view id) {
  return JoinKey({caller.namespace_name, id});
}

absl::Status NoSuch(const Caller& caller, absl::string_view id) {
  return absl::NotFoundError(
      absl::StrCat("container '", id, "' in namespace '", caller.namespace_name, "': not found"));
}

std::optional<std::string> Field(const Container& container, const std::vector<std::string>& path) {
  if (path.size() == 1 && path[0] == "id") return TextField(container.id());
  if (path.size() == 1 && path[0] == "image") return TextField(container.image());
  if (path.size() == 2 && path[0] == "runtime" && path[1] == "name") {
    return TextField(container.runtime().name());
  }
  if (path.size() > 1 && path[0] == "labels") return LabelField(container.labels(), path);
  return std::nullopt;
}

absl::Status ApplyPath(const std::string& path, const Container& wanted, Container& updated) {
  if (ApplyLabelPath(path, "labels", wanted.labels(), *updated.mutable_labels()))
    return absl::OkStatus();
  if (ApplyAnyPath(path, "extensions", wanted.extensions(), *updated.mutable_extensions())) {
    return absl::OkStatus();
  }
  if (path == "spec") {
    *updated.mutable_spec() = wanted.spec();
  } else if (path == "image") {
    updated.set_image(wanted.image());
  } else if (path == "snapshotkey" ||
             path == "snapshot_key") {  // Go's clients write it without '_'.
    updated.set_snapshot_key(wanted.snapshot_key());
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot update the field '", path, "' of container '", wanted.id(), "'"));
  }
  return absl::OkStatus();
}

absl::Status CheckImmutable(const Container& recorded, const Container& wanted) {
  if (recorded.snapshotter() != wanted.snapshotter()) {
    return absl::InvalidArgumentError(
        absl::StrCat("container '", wanted.id(), "': the snapshotter cannot change"));
  }
  if (recorded.runtime().name() != wanted.runtime().name()) {
    return absl::InvalidArgumentError(
        absl::StrCat("container '", wanted.id(), "': the name of the runtime cannot change"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Containers::Check(const Container& container) {
  RETURN_IF_ERROR(CheckIdentifier("container id", container.id()));
  RETURN_IF_ERROR(CheckLabels(container.labels()));
  if (!container.image().empty())
    RETURN_IF_ERROR(CheckKey("image name", container.image(), kMaxNameBytes));
  for (const auto& [name, value] : container.extensions()) {
    if (name.empty()) return absl::InvalidArgumentError("a container extension has no name");
  }
  if (container.runtime().name().empty()) {
    return absl::InvalidArgumentError("container.runtime.name must be set");
  }
  if (!container.has_spec()) return absl::InvalidArgumentError("container.spec must be set");
  if (!container.snapshot_key().empty() && container.snapshotter().empty()) {
    return absl::InvalidArgumentError("container.snapshotter must be set when snapshot_key is");
  }
  if (!container.snapshotter().empty())
    RETURN_IF_ERROR(CheckIdentifier("snapshotter", container.snapshotter()));
  if (!container.sandbox().empty())
    RETURN_IF_ERROR(CheckIdentifier("sandbox id", container.sandbox()));
  if (container.ByteSizeLong() > kMaxContainerBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "container '", container.id(), "' has more than ", kMaxContainerBytes, " bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Container> Containers::Get(const Caller& caller, const std::string& id) const {
  RETURN_IF_ERROR(CheckIdentifier("container id", id));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  ASSIGN_OR_RETURN(auto found, Load<Container>(reader, Table::kContainers, KeyOf(caller, id)));
  if (!found) return NoSuch(caller, id);
  return *std::move(found);
}

absl::StatusOr<std::vector<Container>> Containers::List(
    const Caller& caller, const std::vector<std::string>& filters) const {
  ASSIGN_OR_RETURN(filter::Filter filter, filter::Filter::Parse(filters));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  return ListMatching<Container>(reader, Table::kContainers, JoinPrefix({caller.namespace_name}),
                                 filter, Field);
}

absl::Status Containers::CreateIn(Writer& writer, const Caller& caller, Container& container) {
  const std::string key = KeyOf(caller, container.id());
  ASSIGN_OR_RETURN(auto present, writer.Find(Table::kContainers, key));
  if (present)
    return absl::AlreadyExistsError(
        absl::StrCat("container '", container.id(), "': already exists"));
  RETURN_IF_ERROR(EnsureNamespace(writer, caller.namespace_name));
  DropEmptyLabels(*container.mutable_labels());
  *container.mutable_created_at() = ToProto(writer.now());
  *container.mutable_updated_at() = container.created_at();
  RETURN_IF_ERROR(Store(writer, Table::kContainers, key, container));
  containerd::events::ContainerCreate event;
  event.set_id(container.id());
  event.set_image(container.image());
  event.mutable_runtime()->set_name(container.runtime().name());
  if (container.runtime().has_options()) {
    *event.mutable_runtime()->mutable_options() = container.runtime().options();
  }
  return PublishEvent(writer, caller.namespace_name, "/containers/create", event);
}

absl::StatusOr<Container> Containers::Create(const Caller& caller, const Container& wanted) {
  RETURN_IF_ERROR(Check(wanted));
  Container created = wanted;
  RETURN_IF_ERROR(database_.Write(
      Database::Purpose::kGrow, [&](Writer& writer) { return CreateIn(writer, caller, created); }));
  return created;
}

absl::StatusOr<Container> Containers::Update(const Caller& caller, const Container& wanted,
                                             const std::vector<std::string>& mask) {
  RETURN_IF_ERROR(CheckIdentifier("container id", wanted.id()));
  static const std::vector<std::string>* const kReplaced =
      new std::vector<std::string>{"labels", "spec", "extensions", "image", "snapshot_key"};
  Container updated;
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(auto found,
                     Load<Container>(writer, Table::kContainers, KeyOf(caller, wanted.id())));
    if (!found) return NoSuch(caller, wanted.id());
    if (mask.empty()) RETURN_IF_ERROR(CheckImmutable(*found, wanted));
    updated = *std::move(found);
    for (const std::string& path : mask.empty() ? *kReplaced : mask) {
      RETURN_IF_ERROR(ApplyPath(path, wanted, updated));
    }
    DropEmptyLabels(*updated.mutable_labels());
    RETURN_IF_ERROR(Check(updated));
    *updated.mutable_updated_at() = ToProto(writer.now());
    RETURN_IF_ERROR(Store(writer, Table::kContainers, KeyOf(caller, wanted.id()), updated));
    containerd::events::ContainerUpdate event;
    event.set_id(updated.id());
    event.set_image(updated.image());
    *event.mutable_labels() = updated.labels();
    event.set_snapshot_key(updated.snapshot_key());
    return PublishEvent(writer, caller.namespace_name, "/containers/update", event);
  }));
  on_garbage_();
  return updated;
}

absl::Status Containers::DeleteIn(Writer& writer, const Caller& caller, const std::string& id) {
  ASSIGN_OR_RETURN(bool deleted, writer.Delete(Table::kContainers, KeyOf(caller, id)));
  if (!deleted) return NoSuch(caller, id);
  containerd::events::ContainerDelete event;
  event.set_id(id);
  return PublishEvent(writer, caller.namespace_name, "/containers/delete", event);
}

absl::Status Containers::Delete(const Caller& caller, const std::string& id) {
  RETURN_IF_ERROR(CheckIdentifier("container id", id));
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kFree,
                                  [&](Writer& writer) { return DeleteIn(writer, caller, id); }));
  on_garbage_();
  return absl::OkStatus();
}

}  // namespace gantry::metadata
