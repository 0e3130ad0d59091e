#include "services/metadata/images.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/digest.h"
#include "lib/base/identifier.h"
#include "lib/base/status.h"
#include "services/metadata/labels.h"
#include "services/metadata/listing.h"
#include "services/metadata/objects.h"

namespace gantry::metadata {
namespace {

namespace v1 = containerd::services::images::v1;
using Image = Images::Image;

constexpr size_t kMaxNameBytes = 512;

std::string KeyOf(const Caller& caller, absl::string_view name) {
  return JoinKey({caller.namespace_name, name});
}

absl::Status NoSuch(absl::string_view name) {
  return absl::NotFoundError(absl::StrCat("image '", name, "': not found"));
}

std::optional<std::string> Field(const Image& image, const std::vector<std::string>& path) {
  if (path.size() == 1 && path[0] == "name") return TextField(image.name());
  if (path.size() == 2 && path[0] == "target" && path[1] == "digest") {
    return TextField(image.target().digest());
  }
  if (path.size() == 2 && path[0] == "target" && path[1] == "mediatype") {
    return TextField(image.target().media_type());
  }
  if (path.size() > 1 && path[0] == "labels") return LabelField(image.labels(), path);
  if (path.size() > 1 && path[0] == "annotations")
    return LabelField(image.target().annotations(), path);
  return std::nullopt;
}

absl::Status Check(const Image& image) {
  RETURN_IF_ERROR(CheckKey("image name", image.name(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckLabels(image.labels()));
  RETURN_IF_ERROR(Annotate(Digest::Parse(image.target().digest()).status(), "image.target.digest"));
  if (image.target().size() <= 0) {
    return absl::InvalidArgumentError("image.target.size must be greater than zero");
  }
  if (image.target().media_type().empty()) {
    return absl::InvalidArgumentError("image.target.media_type must be set");
  }
  return CheckLabels(image.target().annotations());
}

absl::Status ApplyPath(const std::string& path, const Image& wanted, Image& updated) {
  if (ApplyLabelPath(path, "labels", wanted.labels(), *updated.mutable_labels()))
    return absl::OkStatus();
  if (ApplyLabelPath(path, "annotations", wanted.target().annotations(),
                     *updated.mutable_target()->mutable_annotations())) {
    return absl::OkStatus();
  }
  if (path == "target") {
    *updated.mutable_target() = wanted.target();
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("cannot update the field '", path, "' of image '", wanted.name(), "'"));
}

absl::Status LeaseIfExpiring(Writer& writer, const Caller& caller, const Image& image) {
  if (image.labels().find(kLabelGcExpire) == image.labels().end()) return absl::OkStatus();
  return AddToLease(writer, caller, kImageResource, image.name());
}

}  // namespace

absl::StatusOr<Image> Images::Get(const Caller& caller, const std::string& name) const {
  RETURN_IF_ERROR(CheckKey("image name", name, kMaxNameBytes));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  ASSIGN_OR_RETURN(auto found, Load<Image>(reader, Table::kImages, KeyOf(caller, name)));
  if (!found) return NoSuch(name);
  return *std::move(found);
}

absl::StatusOr<std::vector<Image>> Images::List(const Caller& caller,
                                                const std::vector<std::string>& filters) const {
  ASSIGN_OR_RETURN(filter::Filter filter, filter::Filter::Parse(filters));
  ASSIGN_OR_RETURN(Reader reader, database_.Read());
  return ListMatching<Image>(reader, Table::kImages, JoinPrefix({caller.namespace_name}), filter,
                             Field);
}

absl::StatusOr<Image> Images::Create(const Caller& caller, const Image& wanted,
                                     std::optional<absl::Time> epoch) {
  RETURN_IF_ERROR(Check(wanted));
  Image created = wanted;
  DropEmptyLabels(*created.mutable_labels());
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    const std::string key = KeyOf(caller, created.name());
    ASSIGN_OR_RETURN(auto present, writer.Find(Table::kImages, key));
    if (present)
      return absl::AlreadyExistsError(absl::StrCat("image '", created.name(), "': already exists"));
    RETURN_IF_ERROR(EnsureNamespace(writer, caller.namespace_name));
    RETURN_IF_ERROR(LeaseIfExpiring(writer, caller, created));
    *created.mutable_created_at() = ToProto(epoch.value_or(writer.now()));
    *created.mutable_updated_at() = created.created_at();
    RETURN_IF_ERROR(Store(writer, Table::kImages, key, created));
    v1::ImageCreate event;
    event.set_name(created.name());
    *event.mutable_labels() = created.labels();
    return PublishEvent(writer, caller.namespace_name, "/images/create", event);
  }));
  return created;
}

absl::StatusOr<Image> Images::Update(const Caller& caller, const Image& wanted,
                                     const std::vector<std::string>& mask,
                                     std::optional<absl::Time> epoch) {
  RETURN_IF_ERROR(CheckKey("image name", wanted.name(), kMaxNameBytes));
  Image updated;
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kGrow, [&](Writer& writer) -> absl::Status {
    const std::string key = KeyOf(caller, wanted.name());
    ASSIGN_OR_RETURN(auto found, Load<Image>(writer, Table::kImages, key));
    if (!found) return NoSuch(wanted.name());
    updated = mask.empty() ? wanted : *found;
    *updated.mutable_created_at() = found->created_at();
    for (const std::string& path : mask) RETURN_IF_ERROR(ApplyPath(path, wanted, updated));
    DropEmptyLabels(*updated.mutable_labels());
    RETURN_IF_ERROR(Check(updated));
    RETURN_IF_ERROR(LeaseIfExpiring(writer, caller, updated));
    *updated.mutable_updated_at() = ToProto(epoch.value_or(writer.now()));
    RETURN_IF_ERROR(Store(writer, Table::kImages, key, updated));
    v1::ImageUpdate event;
    event.set_name(updated.name());
    *event.mutable_labels() = updated.labels();
    return PublishEvent(writer, caller.namespace_name, "/images/update", event);
  }));
  on_garbage_();
  return updated;
}

absl::Status Images::DeleteIn(Writer& writer, const Caller& caller, const std::string& name) {
  ASSIGN_OR_RETURN(bool deleted, writer.Delete(Table::kImages, KeyOf(caller, name)));
  if (!deleted) return NoSuch(name);
  v1::ImageDelete event;
  event.set_name(name);
  return PublishEvent(writer, caller.namespace_name, "/images/delete", event);
}

absl::Status Images::CheckTarget(const Reader& reader, const Caller& caller, absl::string_view name,
                                 absl::string_view digest) {
  ASSIGN_OR_RETURN(auto image, Load<Image>(reader, Table::kImages, KeyOf(caller, name)));
  if (image && image->target().digest() == digest) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("image '", name, "' ",
                                         image ? "has another target by now" : "is gone",
                                         "; look it up again"));
}

absl::Status Images::Delete(const Caller& caller, const std::string& name,
                            const Descriptor* target) {
  RETURN_IF_ERROR(CheckKey("image name", name, kMaxNameBytes));
  RETURN_IF_ERROR(database_.Write(Database::Purpose::kFree, [&](Writer& writer) -> absl::Status {
    if (target != nullptr) {
      ASSIGN_OR_RETURN(auto found, Load<Image>(writer, Table::kImages, KeyOf(caller, name)));
      if (!found) return NoSuch(name);
      if (found->target().digest() != target->digest()) {
        return absl::NotFoundError(absl::StrCat("image '", name, "' points to '",
                                                found->target().digest(), "', not to '",
                                                target->digest(), "': not found"));
      }
    }
    return DeleteIn(writer, caller, name);
  }));
  on_garbage_();
  return absl::OkStatus();
}

}  // namespace gantry::metadata
