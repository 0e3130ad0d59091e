// What registries say in WWW-Authenticate, and what we answer.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace gantry::image {

// Who somebody is to a registry; all empty: anonymous. Never logged, never in an error.
struct Credentials {
  std::string username;
  std::string password;
  std::string identity_token;  // Buys tokens instead of user and password (OAuth2).
  std::string header;          // A finished value of `Authorization`.

  bool empty() const {
    return username.empty() && password.empty() && identity_token.empty() && header.empty();
  }
};

// One challenge of RFC 7235: `Bearer realm="…",service="…",scope="…"`.
struct Challenge {
  std::string scheme;                             // Lower case.
  std::map<std::string, std::string> parameters;  // Names in lower case.
};

// The challenges in a header, in order; what cannot be read ends the list.
std::vector<Challenge> ParseChallenges(absl::string_view header);

// "Basic <base64 of user:password>".
std::string BasicAuthorization(const Credentials& credentials);

// A token answer: {"token": …} or {"access_token": …}, with "expires_in" seconds (60 without).
struct Token {
  std::string value;
  absl::Duration lifetime;
};
absl::StatusOr<Token> ParseToken(absl::string_view json);

// Credentials of `registry` in Docker's config.json (`auths`); empty when it has none.
absl::StatusOr<Credentials> FindCredentials(absl::string_view config_json,
                                            const std::string& registry);

}  // namespace gantry::image
