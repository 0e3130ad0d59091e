#include "services/image/registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/archive/sha256.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::image {
namespace {

constexpr int kMaxRedirects = 5;
constexpr int kMaxTotalAttempts = 50;
constexpr size_t kMaxBases = 1000;

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
    : http_(http),
      options_(std::move(options)),
      plain_(options_.insecure),
      authorizer_(http_, options_, plain_) {}

bool Registry::MayBePlain(const Session& session, const UrlParts& target) const {
  const std::string host = absl::StrCat(target.host, ":", target.port);
  if (plain_.Allows(target.host) || plain_.Allows(host)) return true;
  if (!session.plain) return false;
  // The caller's word counts for the registry it named, not for where that sends us.
  absl::StatusOr<UrlParts> named =
      SplitUrl(absl::StrCat("http://", ApiHost(session.reference.registry()), "/"));
  return named.ok() && named->host == target.host && named->port == target.port;
}

absl::StatusOr<HostSettings> Registry::SettingsOf(const Session& session,
                                                  const std::string& host) const {
  return LoadHostSettings(
      session.host_directory.empty() ? options_.host_directory : session.host_directory, host);
}

absl::StatusOr<Registry::Endpoint> Registry::FindEndpoint(const Session& session) {
  Endpoint endpoint;
  ASSIGN_OR_RETURN(endpoint.settings, SettingsOf(session, session.reference.registry()));
  endpoint.base = endpoint.settings.server;
  if (endpoint.base.empty()) {
    ASSIGN_OR_RETURN(endpoint.base, GuessBase(session, endpoint.settings));
  }
  return endpoint;
}

// A host that may be plain is asked in plain first. Go's servers, and with them most registries,
// answer 400 when they speak TLS; others break the connection.
absl::StatusOr<std::string> Registry::GuessBase(const Session& session,
                                                const HostSettings& settings) {
  const std::string host = ApiHost(session.reference.registry());
  const std::string secure = absl::StrCat("https://", host);
  const std::string plain = absl::StrCat("http://", host);
  ASSIGN_OR_RETURN(const UrlParts parts, SplitUrl(plain + "/"));
  if (!MayBePlain(session, parts)) return secure;
  {
    absl::MutexLock lock(&mutex_);
    auto known = bases_.find(host);
    if (known != bases_.end()) return known->second;
  }
  HttpRequest probe;
  probe.url = plain + "/v2/";
  probe.direct = true;
  probe.cancelled = session.cancelled;
  probe.tls = settings.tls;
  absl::StatusOr<HttpResponse> answer = http_.Send(probe);
  std::string base = plain;
  if (!answer.ok() || answer->status == 400) {
    probe.url = secure + "/v2/";
    absl::StatusOr<HttpResponse> other = http_.Send(probe);
    // A certificate we do not trust speaks TLS all the same.
    if (other.ok() || absl::IsFailedPrecondition(other.status())) {
      base = secure;
    } else if (!answer.ok()) {
      return answer.status();
    }
  }
  absl::MutexLock lock(&mutex_);
  if (bases_.size() > kMaxBases) bases_.clear();
  bases_[host] = base;
  return base;
}

absl::Status Registry::Address(const Session& session, const Endpoint& endpoint,
                               const std::string& authorization, HttpRequest* request) const {
  ASSIGN_OR_RETURN(const UrlParts own, SplitUrl(endpoint.base + "/"));
  ASSIGN_OR_RETURN(const UrlParts target, SplitUrl(request->url));
  const std::string host = absl::StrCat(target.host, ":", target.port);
  request->direct = MayBePlain(session, target);
  // Credentials and what the configuration says belong to scheme, host and port (SECURITY-RULES
  // 30).
  if (target.Origin() == own.Origin()) {
    request->tls = endpoint.settings.tls;
    for (const std::vector<std::string>* headers : {&endpoint.settings.headers, &session.headers}) {
      request->headers.insert(request->headers.end(), headers->begin(), headers->end());
    }
    if (!authorization.empty()) {
      request->headers.push_back(absl::StrCat("Authorization: ", authorization));
    }
    return absl::OkStatus();
  }
  if (target.scheme == "http" && !request->direct) {
    return absl::PermissionDeniedError(
        absl::StrCat("the registry redirects to '", EscapeForTerminal(host),
                     "' without TLS; name it in [image] insecure_registries to allow that"));
  }
  ASSIGN_OR_RETURN(HostSettings settings, SettingsOf(session, host));
  request->tls = std::move(settings.tls);
  return absl::OkStatus();
}

absl::StatusOr<HttpResponse> Registry::Follow(const Session& session, const Endpoint& endpoint,
                                              HttpRequest request,
                                              const std::string& authorization) {
  const std::vector<std::string> headers = request.headers;
  for (int redirects = 0;; ++redirects) {
    request.headers = headers;
    RETURN_IF_ERROR(Address(session, endpoint, authorization, &request));
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
  ASSIGN_OR_RETURN(const Endpoint endpoint, FindEndpoint(session));
  request.url = absl::StrCat(endpoint.base, "/v2/", session.reference.repository(), "/", path);
  request.cancelled = session.cancelled;
  std::string authorization = authorizer_.Known(session);
  // What is known, a fresh look at the challenge, and once more for a token that had just expired.
  HttpResponse response;
  for (int round = 0;; ++round) {
    ASSIGN_OR_RETURN(response, Follow(session, endpoint, request, authorization));
    if (response.status != 401 || round == 2) break;
    ASSIGN_OR_RETURN(authorization, authorizer_.Answer(session, response, authorization));
  }
  if (response.status >= 200 && response.status < 300) return response;
  if (response.status == 401) authorizer_.Forget(session);
  return RegistryError(response);
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
    const absl::Duration asked = RetryAfter(status);
    if (asked > options_.longest_retry_after) {
      return Annotate(status, absl::StrCat("it asks to be left alone for ",
                                           absl::FormatDuration(asked), "; try again then"));
    }
    // A wait that a cancelled pull ends early.
    absl::Mutex mutex;
    absl::MutexLock lock(&mutex);
    const absl::Time until = absl::Now() + std::max(pause, asked);
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
