#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "lib/oci/image_manifest.h"

namespace gantry::image {

struct RegistryOptions {
  // Hosts ("name", "name:port") and networks ("10.0.0.0/8") that may be spoken to without TLS,
  // beside 127.0.0.0/8, ::1 and localhost.
  std::vector<std::string> insecure;
  // "registry=host": credentials of the registry may also be sent to this token server.
  std::vector<std::string> token_servers = {"docker.io=auth.docker.io",
                                            "registry.gitlab.com=gitlab.com"};
  std::string auth_file;                                 // Docker's config.json; empty: none.
  std::string host_directory;                            // registry_hosts.h; empty: none.
  int attempts = 5;                                      // Without progress in between.
  absl::Duration first_pause = absl::Milliseconds(200);  // Doubles with every attempt.
  absl::Duration longest_pause = absl::Seconds(10);
  // A registry that asks to be left alone for longer (Retry-After) is not asked again.
  absl::Duration longest_retry_after = absl::Minutes(1);
  oci::ImageLimits limits;
};

}  // namespace gantry::image
