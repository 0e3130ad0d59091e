// How single registries are reached: containerd's directory of host configurations.
//
//   <directory>/registry.example:5000/hosts.toml    or registry.example_5000_, or _default
//     server = "https://registry.example:5000"      where the registry is; its own name without
//     ca = "ca.pem"                                 trusted beside the machine's own; or a list
//     client = ["client.cert", "client.key"]        shown to the registry; or one file with both
//     skip_verify = true                            any certificate will do
//     [header]                                      sent with every request
//     X-Team = "a"
//
// Without hosts.toml, Docker's form: `*.crt` are authorities, `NAME.cert` with `NAME.key` is the
// client's certificate. Relative paths begin at the directory of the host. The settings of a table
// [host."URL"] count when the URL is the server's; other hosts there are mirrors, which are not
// asked: the registry itself is.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::image {

struct TlsSettings {
  std::string ca_pem;              // Further authorities; empty: only the machine's.
  std::string client_certificate;  // Path; empty: none is shown.
  std::string client_key;          // Path; empty: in the file of the certificate.
  bool skip_verify = false;
};

struct HostSettings {
  std::string server;  // "https://name:port"; empty: the registry's own name.
  TlsSettings tls;
  std::vector<std::string> headers;  // "Name: value".
};

// The settings of `host` ("name" or "name:port"); the defaults when there are none.
// Errors: InvalidArgument — the file says something else than the above; NotFound — it names a
// missing file.
absl::StatusOr<HostSettings> LoadHostSettings(const std::string& directory,
                                              const std::string& host);

// A hosts.toml that lies in `folder`.
absl::StatusOr<HostSettings> ParseHostSettings(absl::string_view text, const std::string& folder);

}  // namespace gantry::image
