#include "services/image/url.h"

#include <curl/curl.h>

#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::image {
namespace {

struct FreeUrl {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using Url = std::unique_ptr<CURLU, FreeUrl>;

std::string UrlPart(CURLU* url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, flags) != CURLUE_OK || text == nullptr) return "";
  std::string copy = text;
  curl_free(text);
  return copy;
}

}  // namespace

std::string UrlParts::Origin() const {
  const bool address = absl::StrContains(host, ":");  // IPv6 stands in brackets.
  return absl::StrCat(scheme, "://", address ? "[" : "", host, address ? "]" : "", ":", port);
}

absl::StatusOr<UrlParts> SplitUrl(const std::string& text) {
  Url url(curl_url());
  if (curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) {
    return absl::InvalidArgumentError(absl::StrCat("'", EscapeForTerminal(text), "' is not a URL"));
  }
  UrlParts parts;
  parts.scheme = UrlPart(url.get(), CURLUPART_SCHEME);
  parts.host = UrlPart(url.get(), CURLUPART_HOST);
  parts.port = UrlPart(url.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT);
  parts.path = UrlPart(url.get(), CURLUPART_PATH);
  if (const std::string query = UrlPart(url.get(), CURLUPART_QUERY); !query.empty()) {
    parts.path += "?" + query;
  }
  if (absl::StartsWith(parts.host, "[")) parts.host = parts.host.substr(1, parts.host.size() - 2);
  if ((parts.scheme != "http" && parts.scheme != "https") || parts.host.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", EscapeForTerminal(text), "' is not an http or https URL"));
  }
  return parts;
}

absl::StatusOr<std::string> ResolveUrl(const std::string& base, const std::string& reference) {
  Url url(curl_url());
  if (curl_url_set(url.get(), CURLUPART_URL, base.c_str(), 0) != CURLUE_OK ||
      curl_url_set(url.get(), CURLUPART_URL, reference.c_str(), 0) != CURLUE_OK) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", EscapeForTerminal(reference), "' is not a URL"));
  }
  // User and password in a redirect would be credentials of somebody else's choice.
  curl_url_set(url.get(), CURLUPART_USER, nullptr, 0);
  curl_url_set(url.get(), CURLUPART_PASSWORD, nullptr, 0);
  curl_url_set(url.get(), CURLUPART_FRAGMENT, nullptr, 0);
  const std::string resolved = UrlPart(url.get(), CURLUPART_URL);
  RETURN_IF_ERROR(SplitUrl(resolved).status());
  return resolved;
}

std::string UrlEscape(absl::string_view text) {
  std::string escaped;
  for (unsigned char c : text) {
    if (absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.' || c == '~') {
      escaped += static_cast<char>(c);
    } else {
      absl::StrAppend(&escaped, "%",
                      absl::AsciiStrToUpper(absl::StrCat(absl::Hex(c, absl::kZeroPad2))));
    }
  }
  return escaped;
}

}  // namespace gantry::image
