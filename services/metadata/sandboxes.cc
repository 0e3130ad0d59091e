#include "services/metadata/sandboxes.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "services/metadata/labels.h"
#include "services/metadata/listing.h"
#include "services/metadata/objects.h"

namespace gantry::metadata {
namespace {

using Sandbox = Sandboxes::Sandbox;

std::string KeyOf(const Caller& caller, absl::string_view id) {
  return JoinKey({caller.namespace_name, id});
}

absl::Status NoSuch(absl::string_view id) {
  return absl::NotFoundError(absl::StrCat("sandbox '", id, "': not found"));
}

std::optional<std::string> Field(const Sandbox& sandbox, const std::vector<std::string>& path) {
  if (path.size() == 1 && path[0] == "id") return TextField(sandbox.sandbox_id());
  if (path.size() > 1 && path[0] == "labels") return LabelField(sandbox.labels(), path);
  return std::nullopt;
}

absl::Status Check(const Sandbox& sandbox) {
  RETURN_IF_ERROR(CheckIdentifier("sandbox id", sandbox.sandbox_id()));
  RETURN_IF_ERROR(CheckLabels(sandbox.labels()));
  for (const auto& [name, value] : sandbox.extensions()) {
    if (name.empty()) return absl::InvalidArgumentError("a sandbox extension has no name");
  }
  return absl::OkStatus();
}

absl::Status ApplyPath(const std::string& path, const Sandbox& wanted, Sandbox& updated) {
  if (ApplyLabelPath(path, "labels", wanted.labels(), *updated.mutable_labels()))
    return absl::OkStatus();
  if (ApplyAnyPath(path, "extensions", wanted.extensions(), *updated.mutable_extensions())) {
    return absl::OkStatus();
  }
  if (path == "spec") {
    *updated.mutable_spec() = wanted.spec();
  } else if (path == "runtime") {
    *updated.mutable_runtime() = wanted.runtime();
  } else {
    return absl::InvalidArgumentError(absl::StrCat("cannot update the field '", path,
                                                   "' of sandbox '", wanted.sandbox_id(), "'"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Sandbox> Sandboxes::Get(const Caller& caller, const std::string& id) const {
  RETURN_IF_ERROR(CheckIdentifier("sandbox id", id));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  ASSIGN_OR_RETURN(auto found, Load<Sandbox>(reader, Table::kSandboxes, KeyOf(caller, id)));
  if (!found) return NoSuch(id);
  return *std::move(found);
}

absl::StatusOr<std::vector<Sandbox>> Sandboxes::List(
    const Caller& caller, const std::vector<std::string>& filters) const {
  ASSIGN_OR_RETURN(filter::Filter filter, filter::Filter::Parse(filters));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  return ListMatching<Sandbox>(reader, Table::kSandboxes, JoinPrefix({caller.namespace_name}),
                               filter, Field);
}

absl::StatusOr<Sandbox> Sandboxes::Create(const Caller& caller, const Sandbox& wanted) {
  RETURN_IF_ERROR(Check(wanted));
  Sandbox created = wanted;
  DropEmptyLabels(*created.mutable_labels());
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    const std::string key = KeyOf(caller, created.sandbox_id());
    ASSIGN_OR_RETURN(auto present, writer.Find(Table::kSandboxes, key));
    if (present) {
      return absl::AlreadyExistsError(
          absl::StrCat("sandbox '", created.sandbox_id(), "': already exists"));
    }
    RETURN_IF_ERROR(EnsureNamespace(writer, caller.namespace_name));
    *created.mutable_created_at() = ToProto(writer.now());
    *created.mutable_updated_at() = created.created_at();
    return Store(writer, Table::kSandboxes, key, created);
  }));
  return created;
}

absl::StatusOr<Sandbox> Sandboxes::Update(const Caller& caller, const Sandbox& wanted,
                                          const std::vector<std::string>& fields) {
  RETURN_IF_ERROR(CheckIdentifier("sandbox id", wanted.sandbox_id()));
  static const std::vector<std::string>* const kReplaced =
      new std::vector<std::string>{"labels", "extensions", "spec", "runtime"};
  Sandbox updated;
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    const std::string key = KeyOf(caller, wanted.sandbox_id());
    ASSIGN_OR_RETURN(auto found, Load<Sandbox>(writer, Table::kSandboxes, key));
    if (!found) return NoSuch(wanted.sandbox_id());
    if (fields.empty() && found->runtime().name() != wanted.runtime().name()) {
      return absl::InvalidArgumentError(absl::StrCat("sandbox '", wanted.sandbox_id(),
                                                     "': the name of the runtime cannot change"));
    }
    updated = *std::move(found);
    for (const std::string& path : fields.empty() ? *kReplaced : fields) {
      RETURN_IF_ERROR(ApplyPath(path, wanted, updated));
    }
    DropEmptyLabels(*updated.mutable_labels());
    RETURN_IF_ERROR(Check(updated));
    *updated.mutable_updated_at() = ToProto(writer.now());
    return Store(writer, Table::kSandboxes, key, updated);
  }));
  on_garbage_();
  return updated;
}

absl::Status Sandboxes::Delete(const Caller& caller, const std::string& id) {
  RETURN_IF_ERROR(CheckIdentifier("sandbox id", id));
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
    ASSIGN_OR_RETURN(bool deleted, writer.Delete(Table::kSandboxes, KeyOf(caller, id)));
    return deleted ? absl::OkStatus() : NoSuch(id);
  }));
  on_garbage_();
  return absl::OkStatus();
}

}  // namespace gantry::metadata
