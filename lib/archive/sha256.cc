// OpenSSL's plain SHA256_* functions, not EVP: they take the same assembler path, while EVP looks
// up providers at its first use, which the unpack worker would pay for every layer.
#define OPENSSL_SUPPRESS_DEPRECATED

#include "lib/archive/sha256.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace gantry::archive {

Sha256::Sha256() { Reset(); }

void Sha256::Reset() { SHA256_Init(&context_); }

void Sha256::Update(absl::string_view bytes) {
  SHA256_Update(&context_, bytes.data(), bytes.size());
}

Digest Sha256::digest() const {
  SHA256_CTX copy = context_;
  char raw[SHA256_DIGEST_LENGTH];
  SHA256_Final(reinterpret_cast<unsigned char*>(raw), &copy);
  const std::string text =
      absl::StrCat("sha256:", absl::BytesToHexString(absl::string_view(raw, sizeof(raw))));
  return *Digest::Parse(text);  // Well-formed by construction.
}

Digest Sha256Of(absl::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.digest();
}

}  // namespace gantry::archive
