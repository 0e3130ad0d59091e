#include "lib/oci/image_reference.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::oci {
namespace {

constexpr char kDefaultRegistry[] = "docker.io";
constexpr char kOfficialPrefix[] = "library/";
constexpr char kDefaultTag[] = "latest";
constexpr size_t kMaxNameBytes = 255;
constexpr size_t kMaxTagBytes = 128;

bool IsLowerAlnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool IsAlnum(char c) { return IsLowerAlnum(c) || (c >= 'A' && c <= 'Z'); }

absl::Status Invalid(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("invalid reference format: '", EscapeForTerminal(text), "': ", why));
}

// Lower-case letters and digits, joined by '.', one or two '_', or any number of '-'.
bool IsPathComponent(absl::string_view part) {
  if (part.empty() || !IsLowerAlnum(part.front()) || !IsLowerAlnum(part.back())) return false;
  for (size_t i = 0; i < part.size();) {
    if (IsLowerAlnum(part[i])) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < part.size() && !IsLowerAlnum(part[end])) ++end;
    const absl::string_view separator = part.substr(i, end - i);
    const bool dashes =
        std::all_of(separator.begin(), separator.end(), [](char c) { return c == '-'; });
    if (!dashes && separator != "." && separator != "_" && separator != "__") return false;
    i = end;
  }
  return true;
}

bool IsTag(absl::string_view tag) {
  if (tag.empty() || tag.size() > kMaxTagBytes) return false;
  if (!IsAlnum(tag[0]) && tag[0] != '_') return false;
  return std::all_of(tag.begin(), tag.end(),
                     [](char c) { return IsAlnum(c) || c == '_' || c == '.' || c == '-'; });
}

bool IsPort(absl::string_view port) {
  int number = 0;
  return !port.empty() && port.size() <= 5 &&
         std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; }) &&
         absl::SimpleAtoi(port, &number) && number > 0 && number < 65536;
}

bool IsIpv6Literal(absl::string_view host) {
  if (host.size() < 4 || host.front() != '[' || host.back() != ']') return false;
  const absl::string_view inner = host.substr(1, host.size() - 2);
  return std::all_of(inner.begin(), inner.end(), [](char c) {
    return absl::string_view("0123456789abcdefABCDEF:").find(c) != absl::string_view::npos;
  });
}

bool IsHostName(absl::string_view host) {
  for (absl::string_view label : absl::StrSplit(host, '.')) {
    if (label.empty() || !IsAlnum(label.front()) || !IsAlnum(label.back())) return false;
    if (!std::all_of(label.begin(), label.end(), [](char c) { return IsAlnum(c) || c == '-'; })) {
      return false;
    }
  }
  return true;
}

bool IsRegistry(absl::string_view text) {
  if (absl::StartsWith(text, "[")) {
    const size_t end = text.find(']');
    if (end == absl::string_view::npos || !IsIpv6Literal(text.substr(0, end + 1))) return false;
    const absl::string_view rest = text.substr(end + 1);
    return rest.empty() || (rest[0] == ':' && IsPort(rest.substr(1)));
  }
  const size_t colon = text.find(':');
  if (colon != absl::string_view::npos && !IsPort(text.substr(colon + 1))) return false;
  return IsHostName(text.substr(0, colon));
}

// Docker's rule: the first part is a registry if it cannot be a path of Docker Hub.
bool LooksLikeRegistry(absl::string_view part) {
  return part.find('.') != absl::string_view::npos || part.find(':') != absl::string_view::npos ||
         part == "localhost" ||
         std::any_of(part.begin(), part.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
}

}  // namespace

absl::StatusOr<ImageReference> ImageReference::Parse(absl::string_view text) {
  ImageReference reference;
  absl::string_view rest = text;
  if (rest.size() > kMaxNameBytes + kMaxTagBytes + 80) return Invalid(text, "it is too long");
  if (const size_t at = rest.find('@'); at != absl::string_view::npos) {
    absl::StatusOr<Digest> digest = Digest::Parse(rest.substr(at + 1));
    if (!digest.ok()) return Invalid(text, "after '@' must stand sha256: and 64 hex digits");
    reference.digest_ = *digest;
    rest = rest.substr(0, at);
  }
  const size_t last_slash = rest.rfind('/');
  const size_t colon = rest.rfind(':');
  if (colon != absl::string_view::npos &&
      (last_slash == absl::string_view::npos || colon > last_slash)) {
    const absl::string_view tag = rest.substr(colon + 1);
    if (!IsTag(tag)) return Invalid(text, "the tag must match [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}");
    reference.tag_ = std::string(tag);
    rest = rest.substr(0, colon);
  }
  const size_t slash = rest.find('/');
  if (slash != absl::string_view::npos && LooksLikeRegistry(rest.substr(0, slash))) {
    const absl::string_view registry = rest.substr(0, slash);
    if (!IsRegistry(registry)) return Invalid(text, "the registry must be host or host:port");
    reference.registry_ = std::string(registry);
    rest = rest.substr(slash + 1);
    if (reference.registry_ == "index.docker.io") reference.registry_ = kDefaultRegistry;
  } else {
    reference.registry_ = kDefaultRegistry;
  }
  if (rest.empty()) return Invalid(text, "the repository is missing");
  for (absl::string_view part : absl::StrSplit(rest, '/')) {
    if (!IsPathComponent(part)) {
      return Invalid(text,
                     "the repository must be lower-case letters and digits, joined by '.', "
                     "'_', '__' or '-', in parts between '/'");
    }
  }
  reference.repository_ = std::string(rest);
  if (reference.registry_ == kDefaultRegistry && !absl::StrContains(rest, "/")) {
    reference.repository_ = absl::StrCat(kOfficialPrefix, rest);
  }
  if (reference.name().size() > kMaxNameBytes) return Invalid(text, "the name is over 255 bytes");
  // A bare image id would otherwise be taken for a repository of Docker Hub.
  if (text.size() == 64 && text.find_first_not_of("0123456789abcdef") == absl::string_view::npos) {
    return Invalid(text, "64 hex digits are an id, not a name");
  }
  if (reference.tag_.empty() && reference.digest_.empty()) reference.tag_ = kDefaultTag;
  return reference;
}

std::string ImageReference::name() const { return absl::StrCat(registry_, "/", repository_); }

std::string ImageReference::str() const {
  std::string text = name();
  if (!tag_.empty()) absl::StrAppend(&text, ":", tag_);
  if (!digest_.empty()) absl::StrAppend(&text, "@", digest_.str());
  return text;
}

std::string ImageReference::FamiliarName() const {
  if (registry_ != kDefaultRegistry) return name();
  if (absl::StartsWith(repository_, kOfficialPrefix)) {
    return repository_.substr(sizeof(kOfficialPrefix) - 1);
  }
  return repository_;
}

std::string ImageReference::target() const { return digest_.empty() ? tag_ : digest_.str(); }

}  // namespace gantry::oci
