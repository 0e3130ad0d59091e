// gantry-image as the engine uses it: what an image says about its containers.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "gantry/image/v1/image.grpc.pb.h"

namespace gantry::engine {

// Thread-safe.
class ImageClient {
 public:
  ImageClient(const std::shared_ptr<grpc::Channel>& channel, std::string namespace_name);

  // Errors: NotFound "Unable to find image 'X' locally"; FailedPrecondition — several match.
  absl::StatusOr<image::v1::ImageDetails> Inspect(const std::string& reference);

  absl::StatusOr<uint32_t> Count();

 private:
  const std::string namespace_;
  std::unique_ptr<image::v1::Images::Stub> images_;
};

}  // namespace gantry::engine
