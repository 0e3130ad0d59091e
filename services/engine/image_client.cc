#include "services/engine/image_client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/oci/image_reference.h"
#include "services/engine/peer_call.h"

namespace gantry::engine {
namespace {

constexpr size_t kMaxRemembered = 256;

// As people know it: a name without a tag means `latest`.
std::string WithTag(const std::string& reference) {
  const size_t slash = reference.rfind('/');
  const size_t from = slash == std::string::npos ? 0 : slash;
  if (reference.find('@') != std::string::npos || reference.find(':', from) != std::string::npos) {
    return reference;
  }
  return absl::StrCat(reference, ":latest");
}

}  // namespace

ImageClient::ImageClient(const std::shared_ptr<grpc::Channel>& channel, std::string namespace_name)
    : namespace_(std::move(namespace_name)), images_(image::v1::Images::NewStub(channel)) {}

absl::StatusOr<image::v1::ImageDetails> ImageClient::Find(const std::string& reference) {
  image::v1::InspectImageRequest request;
  request.set_reference(reference);
  image::v1::ImageDetails details;
  RETURN_IF_ERROR(CallTwice(
      "image", rpc::kShortCall, namespace_,
      [&](grpc::ClientContext& context) { return images_->Inspect(&context, request, &details); }));
  return details;
}

absl::StatusOr<image::v1::ImageDetails> ImageClient::Inspect(const std::string& reference) {
  absl::StatusOr<image::v1::ImageDetails> details = Find(reference);
  if (absl::IsNotFound(details.status())) {
    return absl::NotFoundError(
        absl::StrCat("Unable to find image '", WithTag(reference), "' locally"));
  }
  return details;
}

absl::StatusOr<ImageClient::Resolved> ImageClient::Resolve(const std::string& reference) {
  {
    absl::MutexLock lock(&mutex_);
    if (auto found = resolved_.find(reference); found != resolved_.end()) return found->second;
  }
  Resolved resolved;
  ASSIGN_OR_RETURN(resolved.details, Inspect(reference));
  const absl::StatusOr<oci::ImageReference> parsed = oci::ImageReference::Parse(reference);
  if (!parsed.ok()) return resolved;  // An id.
  const auto& names = resolved.details.names();
  const std::string name = parsed->str();
  if (std::find(names.begin(), names.end(), name) == names.end()) return resolved;
  resolved.name = name;
  resolved.digest = resolved.details.target().digest();
  // One that is not unpacked may be by the next time, which changes no name.
  if (resolved.details.chain_id().empty()) return resolved;
  absl::MutexLock lock(&mutex_);
  if (resolved_.size() >= kMaxRemembered) resolved_.clear();
  Resolved& remembered = resolved_[reference];
  remembered = resolved;
  remembered.remembered = true;
  return resolved;
}

void ImageClient::Forget(const std::string& reference) {
  absl::MutexLock lock(&mutex_);
  resolved_.erase(reference);
}

absl::StatusOr<image::v1::RemoveImageResponse> ImageClient::Remove(
    const image::v1::RemoveImageRequest& request) {
  image::v1::RemoveImageResponse response;
  RETURN_IF_ERROR(CallOnce("image", rpc::kLongCall, namespace_, [&](grpc::ClientContext& context) {
    return images_->Remove(&context, request, &response);
  }));
  return response;
}

absl::StatusOr<uint32_t> ImageClient::Count() {
  image::v1::ListImagesRequest request;
  image::v1::ListImagesResponse response;
  RETURN_IF_ERROR(CallTwice(
      "image", rpc::kShortCall, namespace_,
      [&](grpc::ClientContext& context) { return images_->List(&context, request, &response); }));
  return static_cast<uint32_t>(response.images_size());
}

}  // namespace gantry::engine
