// gantry-image as the engine uses it: what an image says about its containers.
#pragma once

#include <grpcpp/channel.h>

#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "gantry/image/v1/image.grpc.pb.h"

namespace gantry::engine {

// Thread-safe.
class ImageClient {
 public:
  ImageClient(const std::shared_ptr<grpc::Channel>& channel, std::string namespace_name);

  // Errors: NotFound "Unable to find image 'X' locally"; FailedPrecondition — several match.
  absl::StatusOr<image::v1::ImageDetails> Inspect(const std::string& reference);

  // What a reference means to whoever makes a container from it.
  struct Resolved {
    image::v1::ImageDetails details;
    // Not asked for just now: counts only if metadata agrees (ImageExpectation) that the image of
    // this full name has this target.
    bool remembered = false;
    std::string name;
    std::string digest;
  };
  // As Inspect, but from memory when the reference was resolved before.
  absl::StatusOr<Resolved> Resolve(const std::string& reference);
  void Forget(const std::string& reference);

  // The image service's own words. Errors: NotFound "No such image: X"; FailedPrecondition.
  absl::StatusOr<image::v1::ImageDetails> Find(const std::string& reference);

  absl::StatusOr<uint32_t> Count();

  // Not repeated: a second try would say that it is not there.
  absl::StatusOr<image::v1::RemoveImageResponse> Remove(
      const image::v1::RemoveImageRequest& request);

 private:
  const std::string namespace_;
  std::unique_ptr<image::v1::Images::Stub> images_;
  absl::Mutex mutex_;
  std::map<std::string, Resolved> resolved_ ABSL_GUARDED_BY(mutex_);  // By reference.
};

}  // namespace gantry::engine
