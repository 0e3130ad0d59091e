#pragma once

#include <openssl/sha.h>

#include <string>

#include "absl/strings/string_view.h"
#include "lib/base/digest.h"

namespace gantry::archive {

// A running SHA-256. Thread-compatible.
class Sha256 {
 public:
  Sha256();

  void Update(absl::string_view bytes);

  // The digest of all bytes so far; more may follow.
  Digest digest() const;

  void Reset();

 private:
  SHA256_CTX context_;
};

// The digest of `bytes`.
Digest Sha256Of(absl::string_view bytes);

}  // namespace gantry::archive
