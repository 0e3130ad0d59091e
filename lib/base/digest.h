// Digests of content: "sha256:" and 64 lower-case hex digits, nothing else (SECURITY-RULES 28).
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry {

// A checked digest. Only Parse makes one, so a Digest is safe in a path or URL. Thread-compatible.
class Digest {
 public:
  // Errors: InvalidArgument, naming the text.
  static absl::StatusOr<Digest> Parse(absl::string_view text);

  Digest() = default;  // The empty digest: compares below all others, str() is "".

  const std::string& str() const { return text_; }
  absl::string_view hex() const;
  bool empty() const { return text_.empty(); }

  friend bool operator==(const Digest& a, const Digest& b) { return a.text_ == b.text_; }
  friend bool operator!=(const Digest& a, const Digest& b) { return a.text_ != b.text_; }
  friend bool operator<(const Digest& a, const Digest& b) { return a.text_ < b.text_; }
  template <typename H>
  friend H AbslHashValue(H h, const Digest& d) {
    return H::combine(std::move(h), d.text_);
  }

 private:
  explicit Digest(absl::string_view text) : text_(text) {}
  std::string text_;
};

}  // namespace gantry
