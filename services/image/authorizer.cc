#include "services/image/authorizer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/archive/sha256.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"
#include "lib/sys/file.h"
#include "services/image/registry_hosts.h"

namespace gantry::image {
namespace {

constexpr size_t kMaxTokenAnswerBytes = 256 << 10;
constexpr size_t kMaxCached = 1000;
constexpr absl::Duration kTokenMargin = absl::Seconds(10);
constexpr absl::Duration kBasicLifetime = absl::Minutes(5);
constexpr char kRetryAfterPayload[] = "gantry.image/retry-after-seconds";

// What the registry says in its error document.
std::string ErrorText(const HttpResponse& response) {
  absl::StatusOr<json::Document> document = json::Document::Parse(response.body);
  if (!document.ok()) return "";
  std::optional<json::Value> errors = document->root().Find("errors");
  if (!errors || !errors->is_array() || errors->size() == 0) return "";
  std::string code, message;
  const json::Value first = errors->at(0);
  if (!first.is_object()) return "";
  (void)first.Optional("code", &code);
  (void)first.Optional("message", &message);
  return EscapeForTerminal(
      absl::StrCat(": ", code, code.empty() || message.empty() ? "" : " ", message));
}

// Retry-After as seconds or as a date (RFC 9110, 10.2.3).
absl::Duration ParseRetryAfter(const std::string& header) {
  constexpr absl::Duration kMost = absl::Hours(24);
  int64_t seconds = 0;
  if (absl::SimpleAtoi(header, &seconds)) {
    return std::clamp(absl::Seconds(seconds), absl::ZeroDuration(), kMost);
  }
  absl::Time until;
  std::string error;
  if (!absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", header, &until, &error)) {
    return absl::ZeroDuration();
  }
  return std::clamp(until - absl::Now(), absl::ZeroDuration(), kMost);
}

absl::Status Temporary(const HttpResponse& response, const std::string& text) {
  absl::Status status = absl::UnavailableError(text);
  const absl::Duration pause = ParseRetryAfter(response.Header("retry-after"));
  if (pause > absl::ZeroDuration()) {
    status.SetPayload(kRetryAfterPayload, absl::Cord(absl::StrCat(absl::ToInt64Seconds(pause))));
  }
  return status;
}

// Who is meant by a cached entry, without keeping the secret in it.
std::string Identity(const Credentials& credentials) {
  return archive::Sha256Of(absl::StrCat(credentials.username, "\n", credentials.password, "\n",
                                        credentials.identity_token, "\n", credentials.header))
      .str();
}

std::string KnownKey(const RegistrySession& session) {
  return absl::StrCat(session.reference.name(), "\n", Identity(session.credentials), "\n",
                      session.ask_id);
}

}  // namespace

std::string ApiHost(const std::string& registry) {
  return registry == "docker.io" ? "registry-1.docker.io" : registry;
}

absl::Status RegistryError(const HttpResponse& response) {
  const std::string text =
      absl::StrCat("the registry answered ", response.status, ErrorText(response));
  switch (response.status) {
    case 401:
      return absl::UnauthenticatedError(
          absl::StrCat(text, "; log in, or the repository does not exist"));
    case 403:
      return absl::PermissionDeniedError(text);
    case 404:
      return absl::NotFoundError(text);
    case 408:
    case 429:
      return Temporary(response, text);
    default:
      if (response.status >= 500) return Temporary(response, text);
      return absl::InternalError(text);
  }
}

absl::Duration RetryAfter(const absl::Status& error) {
  const absl::optional<absl::Cord> payload = error.GetPayload(kRetryAfterPayload);
  int64_t seconds = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &seconds)) return absl::ZeroDuration();
  return absl::Seconds(seconds);
}

std::string Authorizer::Known(const RegistrySession& session) {
  absl::MutexLock lock(&mutex_);
  auto found = known_.find(KnownKey(session));
  if (found == known_.end() || found->second.expires <= absl::Now()) return "";
  return found->second.value;
}

void Authorizer::Remember(const RegistrySession& session, const std::string& value,
                          absl::Time expires) {
  absl::MutexLock lock(&mutex_);
  if (known_.size() > kMaxCached) known_.clear();
  known_[KnownKey(session)] = {value, expires};
}

void Authorizer::Forget(const RegistrySession& session) {
  absl::MutexLock lock(&mutex_);
  known_.erase(KnownKey(session));
}

absl::StatusOr<Credentials> Authorizer::CredentialsFor(const RegistrySession& session,
                                                       const HttpResponse& refused) const {
  if (!session.credentials.empty()) return session.credentials;
  if (session.ask) {
    return session.ask(ApiHost(session.reference.registry()), {refused.Header("www-authenticate")});
  }
  if (options_.auth_file.empty()) return Credentials();
  absl::StatusOr<std::string> file = sys::ReadFile(options_.auth_file, 1 << 20);
  if (absl::IsNotFound(file.status())) return Credentials();
  RETURN_IF_ERROR(file.status());
  return Annotate(FindCredentials(*file, session.reference.registry()),
                  absl::StrCat("read '", options_.auth_file, "'"));
}

bool Authorizer::MayBePlain(const RegistrySession& session, const UrlParts& realm) const {
  const std::string host = absl::StrCat(realm.host, ":", realm.port);
  return plain_.Allows(realm.host) || plain_.Allows(host) ||
         (session.plain && host == session.reference.registry());
}

bool Authorizer::MaySendTo(const RegistrySession& session, const UrlParts& realm) const {
  const std::string& registry = session.reference.registry();
  absl::StatusOr<UrlParts> own =
      SplitUrl(absl::StrCat(realm.scheme, "://", ApiHost(registry), "/"));
  if (own.ok() && own->Origin() == realm.Origin()) return true;
  return std::any_of(options_.token_servers.begin(), options_.token_servers.end(),
                     [&](const std::string& entry) {
                       return entry == absl::StrCat(registry, "=", realm.host) ||
                              entry == absl::StrCat(registry, "=", realm.host, ":", realm.port);
                     });
}

absl::Status Authorizer::CheckRealm(const RegistrySession& session, const Credentials& credentials,
                                    const UrlParts& realm) const {
  const std::string host = EscapeForTerminal(absl::StrCat(realm.host, ":", realm.port));
  if (realm.scheme != "https" && !MayBePlain(session, realm)) {
    return absl::PermissionDeniedError(absl::StrCat("the token server '", host, "' has no TLS"));
  }
  if (credentials.empty() || MaySendTo(session, realm)) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("the registry wants its credentials sent to '", host,
                   "'; if that is right, add '", session.reference.registry(), "=",
                   EscapeForTerminal(realm.host), "' to [image] token_servers"));
}

absl::StatusOr<Authorizer::CachedToken> Authorizer::Token(const RegistrySession& session,
                                                          const Credentials& credentials,
                                                          const Challenge& challenge) {
  const auto parameter = [&challenge](const char* name) {
    auto found = challenge.parameters.find(name);
    return found == challenge.parameters.end() ? std::string() : found->second;
  };
  const std::string scope = absl::StrCat("repository:", session.reference.repository(), ":pull");
  absl::StatusOr<UrlParts> realm = SplitUrl(parameter("realm"));
  if (!realm.ok()) {
    return absl::UnauthenticatedError(
        absl::StrCat("the registry names no usable token server: ", realm.status().message()));
  }
  RETURN_IF_ERROR(CheckRealm(session, credentials, *realm));
  const std::string key = absl::StrCat(parameter("realm"), "\n", parameter("service"), "\n", scope,
                                       "\n", Identity(credentials), "\n", session.ask_id);
  {
    absl::MutexLock lock(&mutex_);
    auto found = tokens_.find(key);
    if (found != tokens_.end()) {
      CachedToken cached = std::move(found->second);
      // Every token is tried once per refusal: whoever asks again was refused with it.
      tokens_.erase(found);
      if (cached.expires > absl::Now()) return cached;
    }
  }
  ASSIGN_OR_RETURN(CachedToken token,
                   BuyToken(session, credentials, *realm, parameter("service"), scope));
  absl::MutexLock lock(&mutex_);
  if (tokens_.size() > kMaxCached) tokens_.clear();
  tokens_[key] = token;
  return token;
}

absl::StatusOr<Authorizer::CachedToken> Authorizer::BuyToken(const RegistrySession& session,
                                                             const Credentials& credentials,
                                                             const UrlParts& realm,
                                                             const std::string& service,
                                                             const std::string& scope) {
  const std::string query =
      absl::StrCat("service=", UrlEscape(service), "&scope=", UrlEscape(scope));
  HttpRequest request;
  request.url = absl::StrCat(realm.Origin(), realm.path);
  if (!credentials.identity_token.empty()) {
    // OAuth2: the token is no password, so it goes into the body and not into a URL that is logged.
    request.method = "POST";
    request.body = absl::StrCat("grant_type=refresh_token&client_id=gantry&", query,
                                "&refresh_token=", UrlEscape(credentials.identity_token));
  } else {
    request.url += absl::StrCat(absl::StrContains(realm.path, "?") ? "&" : "?", query);
    if (!credentials.empty()) {
      request.url += absl::StrCat("&account=", UrlEscape(credentials.username));
      request.headers.push_back(absl::StrCat("Authorization: ", BasicAuthorization(credentials)));
    }
  }
  request.max_body_bytes = kMaxTokenAnswerBytes;
  request.cancelled = session.cancelled;
  request.direct = MayBePlain(session, realm);
  const std::string& directory =
      session.host_directory.empty() ? options_.host_directory : session.host_directory;
  ASSIGN_OR_RETURN(HostSettings settings,
                   LoadHostSettings(directory, absl::StrCat(realm.host, ":", realm.port)));
  request.tls = std::move(settings.tls);
  ASSIGN_OR_RETURN(HttpResponse response, http_.Send(request));
  if (response.status == 401 || response.status == 403) {
    return absl::UnauthenticatedError(
        absl::StrCat("the token server refused user and password (", response.status, ")"));
  }
  if (response.status != 200) return Annotate(RegistryError(response), "ask the token server");
  absl::StatusOr<image::Token> token = ParseToken(response.body);
  if (!token.ok()) {
    // The parser's message could quote the answer, and with it the token.
    return absl::UnauthenticatedError("the token server's answer cannot be read");
  }
  return CachedToken{token->value, absl::Now() + token->lifetime - kTokenMargin};
}

absl::StatusOr<std::string> Authorizer::Answer(const RegistrySession& session,
                                               const HttpResponse& refused,
                                               const std::string& tried) {
  ASSIGN_OR_RETURN(const Credentials credentials, CredentialsFor(session, refused));
  if (!credentials.header.empty()) {
    if (tried == credentials.header) return RegistryError(refused);
    Remember(session, credentials.header, absl::Now() + kBasicLifetime);
    return credentials.header;
  }
  for (const Challenge& challenge : ParseChallenges(refused.Header("www-authenticate"))) {
    if (challenge.scheme == "bearer") {
      ASSIGN_OR_RETURN(const CachedToken token, Token(session, credentials, challenge));
      const std::string value = absl::StrCat("Bearer ", token.value);
      Remember(session, value, token.expires);
      return value;
    }
    if (challenge.scheme != "basic" || credentials.username.empty()) continue;
    const std::string value = BasicAuthorization(credentials);
    if (value == tried) break;
    Remember(session, value, absl::Now() + kBasicLifetime);
    return value;
  }
  return RegistryError(refused);
}

}  // namespace gantry::image
