#include "services/image/registry.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/archive/sha256.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/json/json.h"
#include "lib/sys/file.h"

namespace gantry::image {
namespace {

constexpr int kMaxRedirects = 5;
constexpr int kMaxTotalAttempts = 50;
constexpr size_t kMaxTokenAnswerBytes = 256 << 10;
constexpr absl::Duration kTokenMargin = absl::Seconds(10);

std::string ApiHost(const std::string& registry) {
  return registry == "docker.io" ? "registry-1.docker.io" : registry;
}

// "name:port" as name.
std::string HostName(const std::string& host) {
  if (absl::StartsWith(host, "[")) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.find(':'));
}

bool IsLoopback(const std::string& name) {
  if (name == "localhost" || name == "::1") return true;
  in_addr address = {};
  return ::inet_pton(AF_INET, name.c_str(), &address) == 1 && (ntohl(address.s_addr) >> 24) == 127;
}

// Whether the IP address `name` lies in "10.0.0.0/8" or "fd00::/8".
bool InNetwork(const std::string& name, const std::string& network) {
  const size_t slash = network.find('/');
  int bits = 0;
  if (slash == std::string::npos || !absl::SimpleAtoi(network.substr(slash + 1), &bits)) {
    return false;
  }
  for (int family : {AF_INET, AF_INET6}) {
    unsigned char address[16] = {};
    unsigned char base[16] = {};
    if (::inet_pton(family, name.c_str(), address) != 1 ||
        ::inet_pton(family, network.substr(0, slash).c_str(), base) != 1) {
      continue;
    }
    const int size = family == AF_INET ? 32 : 128;
    if (bits < 0 || bits > size) return false;
    for (int i = 0; i < bits; ++i) {
      const int mask = 0x80 >> (i % 8);
      if ((address[i / 8] & mask) != (base[i / 8] & mask)) return false;
    }
    return true;
  }
  return false;
}

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

absl::Status StatusError(const HttpResponse& response) {
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
      return absl::UnavailableError(text);
    default:
      if (response.status >= 500) return absl::UnavailableError(text);
      return absl::InternalError(text);
  }
}

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

std::string Accept() {
  return absl::StrCat("Accept: ",
                      absl::StrJoin({oci::kMediaTypeIndex, oci::kMediaTypeDockerList,
                                     oci::kMediaTypeManifest, oci::kMediaTypeDockerManifest},
                                    ", "));
}

}  // namespace

Registry::Registry(HttpClient& http, RegistryOptions options)
    : http_(http), options_(std::move(options)) {}

bool Registry::MayBePlain(const std::string& host) const {
  const std::string name = HostName(host);
  if (IsLoopback(name)) return true;
  return std::any_of(options_.insecure.begin(), options_.insecure.end(),
                     [&](const std::string& entry) {
                       return entry == host || entry == name || InNetwork(name, entry);
                     });
}

// A host that may be plain is asked in plain first; Go's servers, and with them most registries,
// answer 400 when they speak TLS.
absl::StatusOr<std::string> Registry::BaseUrl(const Session& session) {
  const std::string host = ApiHost(session.reference.registry());
  if (!MayBePlain(host)) return absl::StrCat("https://", host);
  {
    absl::MutexLock lock(&mutex_);
    auto known = schemes_.find(host);
    if (known != schemes_.end()) return absl::StrCat(known->second, "://", host);
  }
  HttpRequest probe;
  probe.url = absl::StrCat("http://", host, "/v2/");
  probe.direct = true;
  probe.cancelled = session.cancelled;
  absl::StatusOr<HttpResponse> answer = http_.Send(probe);
  std::string scheme = "http";
  if (answer.ok() && answer->status == 400) {
    probe.url = absl::StrCat("https://", host, "/v2/");
    absl::StatusOr<HttpResponse> secure = http_.Send(probe);
    if (secure.ok() || absl::IsFailedPrecondition(secure.status())) scheme = "https";
  } else if (!answer.ok()) {
    return answer.status();
  }
  absl::MutexLock lock(&mutex_);
  schemes_[host] = scheme;
  return absl::StrCat(scheme, "://", host);
}

absl::StatusOr<Credentials> Registry::CredentialsFor(const Session& session) const {
  if (!session.credentials.empty() || options_.auth_file.empty()) return session.credentials;
  absl::StatusOr<std::string> file = sys::ReadFile(options_.auth_file, 1 << 20);
  if (absl::IsNotFound(file.status())) return Credentials();
  RETURN_IF_ERROR(file.status());
  return Annotate(FindCredentials(*file, session.reference.registry()),
                  absl::StrCat("read '", options_.auth_file, "'"));
}

bool Registry::MaySendTo(const std::string& registry, const UrlParts& realm) const {
  const std::string host = ApiHost(registry);
  absl::StatusOr<UrlParts> own = SplitUrl(absl::StrCat(realm.scheme, "://", host, "/"));
  const bool same = own.ok() && own->Origin() == realm.Origin();
  const bool listed = std::any_of(
      options_.token_servers.begin(), options_.token_servers.end(), [&](const std::string& entry) {
        return entry == absl::StrCat(registry, "=", realm.host) ||
               entry == absl::StrCat(registry, "=", realm.host, ":", realm.port);
      });
  if (!same && !listed) return false;
  return realm.scheme == "https" || MayBePlain(realm.host) ||
         MayBePlain(absl::StrCat(realm.host, ":", realm.port));
}

absl::StatusOr<std::string> Registry::FetchToken(const Session& session,
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
  const std::string realm_host = absl::StrCat(realm->host, ":", realm->port);
  if (realm->scheme != "https" && !MayBePlain(realm->host) && !MayBePlain(realm_host)) {
    return absl::PermissionDeniedError(
        absl::StrCat("the token server '", EscapeForTerminal(realm_host), "' has no TLS"));
  }
  const bool send_credentials =
      !credentials.empty() && MaySendTo(session.reference.registry(), *realm);
  if (!credentials.empty() && !send_credentials) {
    return absl::PermissionDeniedError(
        absl::StrCat("the registry wants its credentials sent to '", EscapeForTerminal(realm_host),
                     "'; if that is right, add '", session.reference.registry(), "=",
                     EscapeForTerminal(realm->host), "' to [image] token_servers"));
  }
  const std::string key = absl::StrCat(
      parameter("realm"), "\n", parameter("service"), "\n", scope, "\n",
      archive::Sha256Of(absl::StrCat(credentials.username, "\n", credentials.password)).str());
  {
    absl::MutexLock lock(&mutex_);
    auto found = tokens_.find(key);
    if (found != tokens_.end()) {
      const CachedToken cached = found->second;
      // Every token is tried once per refusal: whoever asks again was refused with it.
      tokens_.erase(found);
      if (cached.expires > absl::Now()) return cached.value;
    }
  }
  HttpRequest request;
  request.url =
      absl::StrCat(realm->Origin(), realm->path, absl::StrContains(realm->path, "?") ? "&" : "?",
                   "service=", UrlEscape(parameter("service")), "&scope=", UrlEscape(scope));
  if (send_credentials) {
    request.url += absl::StrCat("&account=", UrlEscape(credentials.username));
    request.headers.push_back(absl::StrCat("Authorization: ", BasicAuthorization(credentials)));
  }
  request.max_body_bytes = kMaxTokenAnswerBytes;
  request.cancelled = session.cancelled;
  request.direct = MayBePlain(realm->host);
  ASSIGN_OR_RETURN(HttpResponse response, http_.Send(request));
  if (response.status == 401 || response.status == 403) {
    return absl::UnauthenticatedError(
        absl::StrCat("the token server refused user and password (", response.status, ")"));
  }
  if (response.status != 200) return Annotate(StatusError(response), "ask the token server");
  absl::StatusOr<Token> token = ParseToken(response.body);
  if (!token.ok()) {
    // The parser's message could quote the answer, and with it the token.
    return absl::UnauthenticatedError("the token server's answer cannot be read");
  }
  absl::MutexLock lock(&mutex_);
  if (tokens_.size() > 1000) tokens_.clear();
  tokens_[key] = {token->value, absl::Now() + token->lifetime - kTokenMargin};
  return token->value;
}

absl::StatusOr<std::string> Registry::Authorize(const Session& session,
                                                const Credentials& credentials,
                                                const HttpResponse& refused) {
  for (const Challenge& challenge : ParseChallenges(refused.Header("www-authenticate"))) {
    if (challenge.scheme == "bearer") {
      ASSIGN_OR_RETURN(std::string token, FetchToken(session, credentials, challenge));
      return absl::StrCat("Bearer ", token);
    }
    if (challenge.scheme == "basic" && !credentials.empty()) return BasicAuthorization(credentials);
  }
  return StatusError(refused);
}

absl::StatusOr<HttpResponse> Registry::Follow(const Session& session, HttpRequest request,
                                              const std::string& authorization) {
  ASSIGN_OR_RETURN(const UrlParts own, SplitUrl(request.url));
  const std::vector<std::string> headers = request.headers;
  for (int redirects = 0;; ++redirects) {
    ASSIGN_OR_RETURN(const UrlParts target, SplitUrl(request.url));
    const std::string host = absl::StrCat(target.host, ":", target.port);
    if (target.scheme == "http" && !MayBePlain(target.host) && !MayBePlain(host)) {
      return absl::PermissionDeniedError(
          absl::StrCat("the registry redirects to '", EscapeForTerminal(host),
                       "' without TLS; name it in [image] insecure_registries to allow that"));
    }
    request.headers = headers;
    // Credentials belong to scheme, host and port (SECURITY-RULES 30).
    if (!authorization.empty() && target.Origin() == own.Origin()) {
      request.headers.push_back(absl::StrCat("Authorization: ", authorization));
    }
    request.direct = MayBePlain(target.host) || MayBePlain(host);
    ASSIGN_OR_RETURN(HttpResponse response, http_.Send(request));
    if (!IsRedirect(response.status)) return response;
    if (redirects >= kMaxRedirects) {
      return absl::FailedPreconditionError(
          absl::StrCat("the registry redirects more than ", kMaxRedirects, " times"));
    }
    ASSIGN_OR_RETURN(request.url, ResolveUrl(request.url, response.Header("location")));
  }
}

absl::StatusOr<HttpResponse> Registry::Request(const Session& session, const std::string& path,
                                               HttpRequest request) {
  ASSIGN_OR_RETURN(const std::string base, BaseUrl(session));
  ASSIGN_OR_RETURN(const Credentials credentials, CredentialsFor(session));
  request.url = absl::StrCat(base, "/v2/", session.reference.repository(), "/", path);
  request.cancelled = session.cancelled;
  const std::string known_key =
      absl::StrCat("\nlast\n", session.reference.name(), "\n", credentials.username);
  std::string authorization;
  {
    absl::MutexLock lock(&mutex_);
    auto found = tokens_.find(known_key);
    if (found != tokens_.end() && found->second.expires > absl::Now()) {
      authorization = found->second.value;
    }
  }
  // The known token, a fresh look at the challenge, and once more for a token that had just
  // expired.
  HttpResponse response;
  for (int round = 0; round < 3; ++round) {
    ASSIGN_OR_RETURN(response, Follow(session, request, authorization));
    if (response.status != 401) break;
    const std::string refused = authorization;
    ASSIGN_OR_RETURN(authorization, Authorize(session, credentials, response));
    if (authorization == refused && absl::StartsWith(refused, "Basic ")) break;
    absl::MutexLock lock(&mutex_);
    tokens_[known_key] = {authorization, absl::Now() + absl::Seconds(50)};
  }
  if (response.status < 200 || response.status >= 300) {
    if (response.status == 401) {
      absl::MutexLock lock(&mutex_);
      tokens_.erase(known_key);
    }
    return StatusError(response);
  }
  return response;
}

absl::Status Registry::Retry(const Session& session, const std::function<absl::Status()>& attempt,
                             const std::function<uint64_t()>& progress) {
  absl::Duration pause = options_.first_pause;
  int without_progress = 0;
  for (int total = 0;; ++total) {
    const uint64_t before = progress();
    const absl::Status status = attempt();
    if (!absl::IsUnavailable(status)) return status;
    if (progress() > before) {
      without_progress = 0;
      pause = options_.first_pause;
    }
    if (++without_progress >= options_.attempts || total >= kMaxTotalAttempts) {
      return Annotate(status, absl::StrCat("gave up after ", total + 1, " attempts"));
    }
    // A wait that a cancelled pull ends early.
    absl::Mutex mutex;
    absl::MutexLock lock(&mutex);
    const absl::Time until = absl::Now() + pause;
    const auto stop = [&session] { return session.cancelled && session.cancelled(); };
    while (!stop() && absl::Now() < until) {
      absl::CondVar wake;
      wake.WaitWithDeadline(&mutex, std::min(until, absl::Now() + absl::Milliseconds(100)));
    }
    if (stop()) return absl::CancelledError("the pull was cancelled");
    pause = std::min(pause * 2, options_.longest_pause);
  }
}

absl::StatusOr<Registry::Document> Registry::FetchDocument(const Session& session,
                                                           const std::string& target) {
  HttpRequest request;
  request.headers.push_back(Accept());
  request.max_body_bytes = options_.limits.max_document_bytes;
  HttpResponse response;
  RETURN_IF_ERROR(Retry(
      session,
      [&]() -> absl::Status {
        ASSIGN_OR_RETURN(response, Request(session, absl::StrCat("manifests/", target), request));
        return absl::OkStatus();
      },
      [] { return uint64_t{0}; }));
  Document document;
  document.digest = archive::Sha256Of(response.body);
  absl::StatusOr<Digest> wanted = Digest::Parse(target);
  if (!wanted.ok()) wanted = Digest::Parse(response.Header("docker-content-digest"));
  if (wanted.ok() && *wanted != document.digest) {
    return absl::DataLossError(absl::StrCat("the registry's manifest has the digest ",
                                            document.digest.str(), ", expected was ",
                                            wanted->str()));
  }
  ASSIGN_OR_RETURN(
      document.media_type,
      oci::DocumentMediaType(response.body, response.Header("content-type"), options_.limits));
  document.bytes = std::move(response.body);
  return document;
}

absl::Status Registry::FetchBlob(const Session& session, const Digest& digest, uint64_t offset,
                                 uint64_t size,
                                 const std::function<absl::Status(absl::string_view)>& sink) {
  uint64_t position = offset;
  const auto attempt = [&]() -> absl::Status {
    if (position == size) return absl::OkStatus();
    uint64_t skip = 0;
    HttpRequest request;
    if (position > 0) request.headers.push_back(absl::StrCat("Range: bytes=", position, "-"));
    request.on_headers = [&](const HttpResponse& response) -> absl::Status {
      // A server without ranges sends everything again.
      skip = response.status == 206 ? 0 : position;
      if (response.status == 206 && position > 0 &&
          !absl::StartsWith(response.Header("content-range"),
                            absl::StrCat("bytes ", position, "-"))) {
        return absl::DataLossError("the registry answered another range than was asked for");
      }
      return absl::OkStatus();
    };
    request.sink = [&](absl::string_view bytes) -> absl::Status {
      const size_t skipped = static_cast<size_t>(std::min<uint64_t>(skip, bytes.size()));
      skip -= skipped;
      bytes.remove_prefix(skipped);
      if (bytes.size() > size - position) {
        return absl::DataLossError(
            absl::StrCat("the registry sends more than the ", size, " bytes of the descriptor"));
      }
      RETURN_IF_ERROR(sink(bytes));
      position += bytes.size();
      return absl::OkStatus();
    };
    RETURN_IF_ERROR(Request(session, absl::StrCat("blobs/", digest.str()), request).status());
    if (position < size) {
      return absl::UnavailableError(
          absl::StrCat("the registry sent ", position, " of ", size, " bytes"));
    }
    return absl::OkStatus();
  };
  // A sink that fails with Unavailable must not be asked again with the same bytes; sinks here fail
  // with other codes (disk full, a dead worker).
  return Retry(session, attempt, [&position] { return position; });
}

}  // namespace gantry::image
