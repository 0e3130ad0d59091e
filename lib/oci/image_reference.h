// Names of images as people type them, and as they are kept.
//
//   "busybox"                 docker.io/library/busybox:latest
//   "127.0.0.1:5000/a"        127.0.0.1:5000/a:latest
//   "ghcr.io/x/y@sha256:…"    ghcr.io/x/y@sha256:…
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/base/digest.h"

namespace gantry::oci {

// A checked reference. Thread-compatible.
class ImageReference {
 public:
  // Reads what a person typed. Without a registry it is docker.io, without a tag or digest
  // "latest"; with a digest the tag may stay: the digest decides. Errors: InvalidArgument — the
  // grammar of distribution's references is broken; the message says how.
  static absl::StatusOr<ImageReference> Parse(absl::string_view text);

  // "docker.io", "127.0.0.1:5000".
  const std::string& registry() const { return registry_; }
  // "library/busybox".
  const std::string& repository() const { return repository_; }
  const std::string& tag() const { return tag_; }  // Empty when only a digest was given.
  const Digest& digest() const { return digest_; }

  // The full name: registry/repository[:tag][@digest].
  std::string str() const;

  // registry/repository.
  std::string name() const;

  // As Docker shows it: without "docker.io/" and "library/", and without tag and digest.
  std::string FamiliarName() const;

  // What to ask the registry for: the digest when there is one, else the tag.
  std::string target() const;

 private:
  std::string registry_;
  std::string repository_;
  std::string tag_;
  Digest digest_;
};

}  // namespace gantry::oci
