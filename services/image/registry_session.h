// One caller's way to a registry: what to fetch, as whom, when to stop.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/oci/image_reference.h"
#include "services/image/registry_auth.h"

namespace gantry::image {

struct RegistrySession {
  oci::ImageReference reference;
  Credentials credentials;  // Empty: `ask`, then those of the auth file, else anonymous.
  std::function<bool()> cancelled;

  // Asked for credentials when the registry wants some, with its host and its challenges; an empty
  // answer means anonymous. Null: nobody to ask. Must be thread-safe.
  std::function<absl::StatusOr<Credentials>(const std::string& host,
                                            const std::vector<std::string>& challenges)>
      ask;
  std::string ask_id;  // Random, with `ask`: what it bought is nobody else's.

  std::string host_directory;        // Instead of RegistryOptions::host_directory when not empty.
  bool plain = false;                // The caller allows this registry to be spoken to without TLS.
  std::vector<std::string> headers;  // "Name: value"; to the registry itself only.
};

}  // namespace gantry::image
