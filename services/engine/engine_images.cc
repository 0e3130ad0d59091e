// Engine: removing images, with an eye on the containers that stand on them.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/oci/image_reference.h"
#include "services/engine/engine.h"

namespace gantry::engine {
namespace {

std::string Short(absl::string_view id) {
  return std::string(absl::StripPrefix(id, "sha256:").substr(0, 12));
}

// Whether `reference` names the image, rather than being its id, or a digest of it.
bool IsName(const std::string& reference, const image::v1::ImageDetails& image) {
  absl::StatusOr<oci::ImageReference> parsed = oci::ImageReference::Parse(reference);
  return parsed.ok() && std::find(image.names().begin(), image.names().end(), parsed->str()) !=
                            image.names().end();
}

absl::Status Conflict(absl::string_view what) {
  return absl::FailedPreconditionError(absl::StrCat("conflict: unable to ", what));
}

}  // namespace

Engine::ImageUsers Engine::UsersOfImage(const std::string& image_id) const {
  ImageUsers users;
  for (const ContainerPtr& container : index_.All()) {
    if (container->definition().image_id() != image_id) continue;
    (IsLive(container->state()) ? users.running : users.stopped) = container;
  }
  return users;
}

absl::StatusOr<v1::RemoveImageResponse> Engine::RemoveImage(const v1::RemoveImageRequest& request) {
  ASSIGN_OR_RETURN(const image::v1::ImageDetails image, images_.Find(request.reference()));
  const ImageUsers users = UsersOfImage(image.id());
  const bool by_name = IsName(request.reference(), image);
  image::v1::RemoveImageRequest removal;
  removal.set_reference(request.reference());
  removal.set_force(true);  // The containers were looked at here.
  if (by_name && image.names_size() == 1) {
    const ContainerPtr& user = users.running != nullptr ? users.running : users.stopped;
    if (user != nullptr && !request.force()) {
      return Conflict(absl::StrCat("remove repository reference \"", request.reference(),
                                   "\" (must force) - container ", Short(user->id()),
                                   " is using its referenced image ", Short(image.id())));
    }
    removal.set_keep_image(users.running != nullptr);
  } else if (!by_name) {
    if (users.running != nullptr) {
      return Conflict(
          absl::StrCat("delete ", Short(image.id()),
                       " (cannot be forced) - image is being used by running container ",
                       Short(users.running->id())));
    }
    if (users.stopped != nullptr && !request.force()) {
      return Conflict(absl::StrCat("delete ", Short(image.id()),
                                   " (must be forced) - image is being used by stopped container ",
                                   Short(users.stopped->id())));
    }
    if (image.names_size() > 1 && request.strict() && !request.force()) {
      return Conflict(
          absl::StrCat("delete ", Short(image.id()),
                       " (must be forced) - image is referenced in multiple repositories"));
    }
  }
  ASSIGN_OR_RETURN(const image::v1::RemoveImageResponse removed, images_.Remove(removal));
  v1::RemoveImageResponse response;
  *response.mutable_untagged() = removed.untagged();
  *response.mutable_deleted() = removed.deleted();
  return response;
}

}  // namespace gantry::engine
