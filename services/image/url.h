// URLs of strangers, taken apart and put together.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gantry::image {

// "http" or "https", host (without brackets), port, and path with query, of an absolute URL.
struct UrlParts {
  std::string scheme, host, port, path;
  std::string Origin() const;  // scheme://host:port: whom credentials belong to.
};
absl::StatusOr<UrlParts> SplitUrl(const std::string& url);

// `reference` as seen from `base`: a Location header. Errors: InvalidArgument — not http(s).
absl::StatusOr<std::string> ResolveUrl(const std::string& base, const std::string& reference);

// `text` with everything but unreserved characters as %XX.
std::string UrlEscape(absl::string_view text);

}  // namespace gantry::image
