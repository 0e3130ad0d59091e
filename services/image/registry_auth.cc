#include "services/image/registry_auth.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/json/json.h"

namespace gantry::image {
namespace {

constexpr absl::Duration kDefaultLifetime = absl::Seconds(60);
constexpr size_t kMaxChallenges = 16;
constexpr size_t kMaxParameters = 32;
constexpr size_t kMaxTokenBytes = 64 << 10;

bool IsTokenChar(char c) {
  return absl::ascii_isalnum(c) || absl::StrContains("!#$%&'*+-.^_`|~", absl::string_view(&c, 1));
}

// A cursor over the header.
class Scanner {
 public:
  explicit Scanner(absl::string_view text) : rest_(text) {}

  void SkipSpace() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\t')) rest_.remove_prefix(1);
  }
  bool Take(char c) {
    SkipSpace();
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  std::string TakeToken() {
    SkipSpace();
    size_t length = 0;
    while (length < rest_.size() && IsTokenChar(rest_[length])) ++length;
    std::string token(rest_.substr(0, length));
    rest_.remove_prefix(length);
    return token;
  }
  bool TakeQuoted(std::string* out) {
    if (!Take('"')) return false;
    while (!rest_.empty() && rest_[0] != '"') {
      if (rest_[0] == '\\' && rest_.size() > 1) rest_.remove_prefix(1);
      *out += rest_[0];
      rest_.remove_prefix(1);
    }
    return Take('"');
  }
  bool done() {
    SkipSpace();
    return rest_.empty();
  }
  absl::string_view rest() const { return rest_; }
  void Reset(absl::string_view rest) { rest_ = rest; }

 private:
  absl::string_view rest_;
};

// NAME=value or NAME="value". False, with nothing taken, when that is not what comes next.
bool TakeParameter(Scanner& scanner, Challenge* challenge) {
  const absl::string_view before = scanner.rest();
  const std::string name = absl::AsciiStrToLower(scanner.TakeToken());
  std::string value;
  if (name.empty() || !scanner.Take('=')) {
    scanner.Reset(before);
    return false;
  }
  scanner.SkipSpace();
  if (absl::StartsWith(scanner.rest(), "\"")) {
    if (!scanner.TakeQuoted(&value)) return false;
  } else {
    value = scanner.TakeToken();
  }
  challenge->parameters.emplace(name, value);
  return true;
}

std::string NormalRegistryKey(absl::string_view key) {
  for (absl::string_view prefix : {"https://", "http://"}) {
    if (absl::StartsWith(key, prefix)) key.remove_prefix(prefix.size());
  }
  const std::string host(key.substr(0, key.find('/')));
  return host == "index.docker.io" || host == "registry-1.docker.io" ? "docker.io" : host;
}

}  // namespace

std::vector<Challenge> ParseChallenges(absl::string_view header) {
  std::vector<Challenge> challenges;
  Scanner scanner(header);
  while (!scanner.done() && challenges.size() < kMaxChallenges) {
    if (scanner.Take(',')) continue;
    Challenge challenge;
    challenge.scheme = absl::AsciiStrToLower(scanner.TakeToken());
    if (challenge.scheme.empty()) break;
    while (challenge.parameters.size() < kMaxParameters && TakeParameter(scanner, &challenge)) {
      const absl::string_view before = scanner.rest();
      if (!scanner.Take(',')) break;
      // After a comma either a further parameter or the next challenge begins.
      Scanner look(scanner.rest());
      Challenge ignored;
      if (!TakeParameter(look, &ignored)) {
        scanner.Reset(before);
        break;
      }
    }
    challenges.push_back(std::move(challenge));
  }
  return challenges;
}

std::string BasicAuthorization(const Credentials& credentials) {
  return absl::StrCat(
      "Basic ", absl::Base64Escape(absl::StrCat(credentials.username, ":", credentials.password)));
}

absl::StatusOr<Token> ParseToken(absl::string_view text) {
  ASSIGN_OR_RETURN(json::Document document, json::Document::Parse(text, 1 << 20));
  Token token;
  RETURN_IF_ERROR(document.root().Optional("token", &token.value));
  if (token.value.empty()) {
    RETURN_IF_ERROR(document.root().Optional("access_token", &token.value));
  }
  if (token.value.empty() || token.value.size() > kMaxTokenBytes) {
    return absl::UnauthenticatedError("the token server answered without a token");
  }
  // A line break would let the token server add headers of its own to our requests.
  for (char c : token.value) {
    if (c <= ' ' || c >= 127) {
      return absl::UnauthenticatedError("the token server answered a token with odd characters");
    }
  }
  int64_t seconds = 0;
  RETURN_IF_ERROR(document.root().Optional("expires_in", &seconds));
  token.lifetime = seconds > 0 && seconds < 86400 * 30 ? absl::Seconds(seconds) : kDefaultLifetime;
  return token;
}

absl::StatusOr<Credentials> FindCredentials(absl::string_view config_json,
                                            const std::string& registry) {
  ASSIGN_OR_RETURN(json::Document document, json::Document::Parse(config_json, 1 << 20));
  Credentials credentials;
  json::Value auths;
  RETURN_IF_ERROR(document.root().Optional("auths", &auths));
  for (size_t i = 0; i < auths.size(); ++i) {
    const auto [key, entry] = auths.member(i);
    if (NormalRegistryKey(key) != registry) continue;
    RETURN_IF_ERROR(entry.Optional("username", &credentials.username));
    RETURN_IF_ERROR(entry.Optional("password", &credentials.password));
    RETURN_IF_ERROR(entry.Optional("identitytoken", &credentials.identity_token));
    std::string encoded;
    RETURN_IF_ERROR(entry.Optional("auth", &encoded));
    std::string decoded;
    if (!encoded.empty() && absl::Base64Unescape(encoded, &decoded)) {
      const size_t colon = decoded.find(':');
      if (colon != std::string::npos) {
        credentials.username = decoded.substr(0, colon);
        credentials.password = decoded.substr(colon + 1);
      }
    }
    return credentials;
  }
  return credentials;
}

}  // namespace gantry::image
