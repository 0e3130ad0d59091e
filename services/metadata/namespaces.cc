#include "services/metadata/namespaces.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "containerd/events/events.pb.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "lib/filter/filter.h"
#include "services/metadata/labels.h"
#include "services/metadata/listing.h"
#include "services/metadata/objects.h"

namespace gantry::metadata {
namespace {

std::optional<std::string> Field(const Namespaces::Namespace& object,
                                 const std::vector<std::string>& path) {
  if (path.size() == 1 && path[0] == "name") return object.name();
  if (path.size() > 1 && path[0] == "labels") return LabelField(object.labels(), path);
  return std::nullopt;
}

absl::Status NoSuch(absl::string_view name) {
  return absl::NotFoundError(absl::StrCat("namespace '", name, "' does not exist"));
}

// What keeps a namespace from being deleted, and how a person calls it.
constexpr std::pair<Table, const char*> kContents[] = {
    {Table::kImages, "images"},       {Table::kContainers, "containers"},
    {Table::kBlobs, "blobs"},         {Table::kSnapshots, "snapshots"},
    {Table::kSandboxes, "sandboxes"}, {Table::kIngests, "ingests"},
    {Table::kRecords, "records"},     {Table::kCommits, "snapshots being committed"}};

absl::Status DeleteAll(Writer& writer, Table table, const std::string& prefix) {
  ASSIGN_OR_RETURN(std::vector<std::string> keys, ListKeys(writer, table, prefix));
  for (const std::string& key : keys) RETURN_IF_ERROR(writer.Delete(table, key).status());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Namespaces::Namespace> Namespaces::Get(const std::string& name) const {
  RETURN_IF_ERROR(CheckIdentifier("namespace", name));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  ASSIGN_OR_RETURN(std::optional<Namespace> found,
                   Load<Namespace>(reader, Table::kNamespaces, name));
  if (found) return *std::move(found);
  Namespace unknown;
  unknown.set_name(name);
  return unknown;
}

absl::StatusOr<std::vector<Namespaces::Namespace>> Namespaces::List(
    const std::string& filter) const {
  ASSIGN_OR_RETURN(filter::Filter wanted, filter::Filter::Parse({filter}));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  return ListMatching<Namespace>(reader, Table::kNamespaces, "", wanted, Field);
}

absl::StatusOr<Namespaces::Namespace> Namespaces::Create(const Namespace& wanted) {
  RETURN_IF_ERROR(CheckIdentifier("namespace", wanted.name()));
  RETURN_IF_ERROR(CheckLabels(wanted.labels()));
  Namespace created = wanted;
  DropEmptyLabels(*created.mutable_labels());
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(auto present, writer.Find(Table::kNamespaces, created.name()));
    if (present)
      return absl::AlreadyExistsError(
          absl::StrCat("namespace '", created.name(), "': already exists"));
    RETURN_IF_ERROR(Store(writer, Table::kNamespaces, created.name(), created));
    containerd::events::NamespaceCreate event;
    event.set_name(created.name());
    *event.mutable_labels() = created.labels();
    return PublishEvent(writer, created.name(), "/namespaces/create", event);
  }));
  return created;
}

absl::StatusOr<Namespaces::Namespace> Namespaces::Update(const Namespace& wanted,
                                                         const std::vector<std::string>& mask) {
  RETURN_IF_ERROR(CheckIdentifier("namespace", wanted.name()));
  RETURN_IF_ERROR(CheckLabels(wanted.labels()));
  Namespace updated;
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(auto found, Load<Namespace>(writer, Table::kNamespaces, wanted.name()));
    if (!found) return NoSuch(wanted.name());
    updated = *std::move(found);
    if (mask.empty()) *updated.mutable_labels() = wanted.labels();
    for (const std::string& path : mask) {
      if (!ApplyLabelPath(path, "labels", wanted.labels(), *updated.mutable_labels())) {
        return absl::InvalidArgumentError(
            absl::StrCat("cannot update the field '", path, "' of a namespace"));
      }
    }
    DropEmptyLabels(*updated.mutable_labels());
    RETURN_IF_ERROR(Store(writer, Table::kNamespaces, updated.name(), updated));
    containerd::events::NamespaceUpdate event;
    event.set_name(updated.name());
    *event.mutable_labels() = updated.labels();
    return PublishEvent(writer, updated.name(), "/namespaces/update", event);
  }));
  return updated;
}

absl::Status Namespaces::Delete(const std::string& name) {
  RETURN_IF_ERROR(CheckIdentifier("namespace", name));
  return database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(auto present, writer.Find(Table::kNamespaces, name));
    if (!present) return NoSuch(name);
    const std::string prefix = JoinPrefix({name});
    std::vector<absl::string_view> left;
    for (const auto& [table, words] : kContents) {
      ASSIGN_OR_RETURN(std::vector<std::string> any, ListKeys(writer, table, prefix, 1));
      if (!any.empty()) left.push_back(words);
    }
    if (!left.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("namespace '", name, "' must be empty, but it still has ",
                       absl::StrJoin(left, ", "), "; remove them first"));
    }
    RETURN_IF_ERROR(DeleteAll(writer, Table::kLeases, prefix));
    RETURN_IF_ERROR(DeleteAll(writer, Table::kLeaseResources, prefix));
    RETURN_IF_ERROR(writer.Delete(Table::kNamespaces, name).status());
    containerd::events::NamespaceDelete event;
    event.set_name(name);
    return PublishEvent(writer, name, "/namespaces/delete", event);
  });
}

}  // namespace gantry::metadata
