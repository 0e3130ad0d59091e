// Grammars of the names that cross our edges (SECURITY-RULES 33), and random ids.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gantry {

// containerd's rule for namespaces, containers, snapshot and lease names: letters and digits joined
// by single '.', '_' or '-', at most 76 bytes. `field` names the offender in the error.
absl::Status CheckIdentifier(absl::string_view field, absl::string_view value);

// A key a client may choose freely (snapshot key, ingest ref, record key): 1 to `max_bytes` bytes
// of printable ASCII including spaces and slashes, no control bytes.
absl::Status CheckKey(absl::string_view field, absl::string_view value, size_t max_bytes = 1024);

// containerd's rule for labels: key plus value at most 4096 bytes, key not empty.
absl::Status CheckLabel(absl::string_view key, absl::string_view value);

// `bytes` random bytes as lower-case hex (getrandom(2)). A container id is RandomHex(32).
std::string RandomHex(size_t bytes);

}  // namespace gantry
