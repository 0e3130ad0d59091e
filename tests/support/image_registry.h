// A docker-registry on 127.0.0.1 with the test image in it: what suites pull from.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "lib/sys/process.h"
#include "lib/sys/temp_dir.h"

namespace gantry::testing {

// Runs while it lives. In a network namespace of the test's own, so the port never collides.
class ImageRegistry {
 public:
  // Starts the registry and pushes the busybox image (deploy/make-image) as `busybox:latest`.
  static absl::StatusOr<std::unique_ptr<ImageRegistry>> Start();

  // "127.0.0.1:5000".
  const std::string& address() const { return address_; }
  // "127.0.0.1:5000/busybox:latest".
  std::string busybox() const;

  // Where its storage ("data") lies.
  const std::string& folder() const { return folder_.path(); }

  // Builds and pushes a further image: `layers` extra layers of `megabytes` MB each.
  absl::Status Push(const std::string& name, int layers, int megabytes);

 private:
  ImageRegistry(sys::TempDir folder, std::string address)
      : folder_(std::move(folder)), address_(std::move(address)) {}
  sys::TempDir folder_;
  std::string address_;
  sys::Child process_;
};

}  // namespace gantry::testing
